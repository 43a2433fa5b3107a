"""A program that takes TLS connections and passes them on: ``PORT CERTIFICATE HOST PORT``."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from workers.valkey import PortTaken, free_port, require_free


@contextmanager
def tls_in_front_of(url: str, certificate: Path) -> Iterator[int]:
    """A port of this machine where the broker is behind TLS."""
    parts, port = urlsplit(url), free_port()
    command = [sys.executable, "-m", "tests.integration.tls_front", str(port), str(certificate)]
    front = subprocess.Popen([*command, parts.hostname or "", str(parts.port or 5672)])
    try:
        while front.poll() is None and _is_free(port):
            time.sleep(0.05)
        yield port
    finally:
        front.terminate()
        front.wait()


def _is_free(port: int) -> bool:
    try:
        require_free(port)
    except PortTaken:
        return False
    return True


async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass bytes on until one side closes."""
    with suppress(OSError):
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
    target.close()


async def serve(port: int, certificate: str, behind: tuple[str, int]) -> None:
    """Take connections until the process ends."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, there = await asyncio.open_connection(*behind)
        await asyncio.gather(pump(reader, there), pump(back, writer))

    async with await asyncio.start_server(take, "127.0.0.1", port, ssl=context) as server:
        await server.serve_forever()


if __name__ == "__main__":
    _, own, pem, host, other = sys.argv
    asyncio.run(serve(int(own), pem, (host, int(other))))

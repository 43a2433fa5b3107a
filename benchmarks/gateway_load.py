"""Clients over bare sockets, so that their own work counts little; and a server for a peer.

Run as a program it is the server: it answers every request on a port at once with one completion.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field

OK = b"HTTP/1.1 200"
ANSWER = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "auto",
    "choices": [{"index": 0, "finish_reason": "stop",
                 "message": {"role": "assistant", "content": "Noted, and done as asked (0)."}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}).encode()  # fmt: skip


@dataclass
class Load:
    """What clients saw; latencies in milliseconds."""

    seconds: float = 0.0
    errors: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """Answered and failed ones."""
        return len(self.latencies) + self.errors

    @property
    def per_s(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, share: float) -> float:
        """The latency below which a share of the answered requests stayed."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


async def load(port: int, key: str, clients: int, seconds: float, stream: bool) -> Load:
    """Have clients ask one question after the other on connections that they keep."""
    found = Load()
    begun = time.perf_counter()
    ends = begun + seconds
    await asyncio.gather(*(_client(port, key, n, ends, stream, found) for n in range(clients)))
    found.seconds = time.perf_counter() - begun
    return found


async def _client(port: int, key: str, number: int, ends: float, stream: bool, found: Load) -> None:
    asked = 0
    while time.perf_counter() < ends:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            found.errors += 1
            await asyncio.sleep(0.1)
            continue
        try:
            while time.perf_counter() < ends:
                asked += 1
                begun = time.perf_counter()
                prompt = f"Client {number} asks its question {asked}."
                writer.write(_request(prompt, key, stream))
                if not await _answered(reader):
                    found.errors += 1
                    break
                found.latencies.append(1000 * (time.perf_counter() - begun))
        except (OSError, asyncio.IncompleteReadError):
            found.errors += 1
        finally:
            writer.close()


def _request(prompt: str, key: str, stream: bool) -> bytes:
    messages = [{"role": "user", "content": prompt}]
    body = json.dumps({"model": "auto", "messages": messages, "stream": stream}).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _answered(reader: asyncio.StreamReader) -> bool:
    """Read one answer to its end; whether it was one."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = _length(head)
    if length is not None:
        body = await reader.readexactly(length)
        return head.startswith(OK.lower()) and b'"choices"' in body
    last = b""
    while size := int(await reader.readuntil(b"\r\n"), 16):
        last = await reader.readexactly(size + 2)
    await reader.readexactly(2)
    return head.startswith(OK.lower()) and b"[DONE]" in last


def _length(head: bytes) -> int | None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return int(value)
    return None


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}"
    try:
        while True:
            asked = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(_length(asked.lower()) or 0)
            writer.write(head.encode() + b"\r\n\r\n" + ANSWER)
            await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        writer.close()


if __name__ == "__main__":
    try:
        asyncio.run(_serve(int(sys.argv[1])))
    except KeyboardInterrupt:
        sys.exit(0)

"""A caller of two llama-servers: the HTTP calls that pipelines written for them make."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

STOPS = ["</s>", "<|im_end|>", "<|endoftext|>"]


class LlamaClient:
    """Posts to ``/completion`` and asks ``/health`` of two ports on this machine."""

    def __init__(self, orchestrator: int, math: int) -> None:
        self.endpoints = {
            "orchestrator": f"http://localhost:{orchestrator}/completion",
            "math": f"http://localhost:{math}/completion",
        }
        self.calls = {"orchestrator": 0, "math": 0}
        self.tokens = 0

    def complete(self, specialist: str, prompt: str, **more: Any) -> str:
        """The content of one completion; its tokens are counted as the server tells them."""
        payload = {"prompt": prompt, "n_predict": 2048, "temperature": 0.7, "stop": STOPS, **more}
        status, reply = self.post(specialist, json.dumps(payload).encode())
        assert status == 200, reply
        self.calls[specialist] += 1
        self.tokens += reply["tokens_predicted"]
        content: str = reply["content"]
        return content

    def post(self, specialist: str, body: bytes) -> tuple[int, Any]:
        """Status and JSON of a call with this body."""
        return self._open(self._request(specialist, body))

    def stream(self, specialist: str, prompt: str) -> Iterator[Any]:
        """The events of a streamed completion."""
        body = json.dumps({"prompt": prompt, "stream": True}).encode()
        with urllib.request.urlopen(self._request(specialist, body), timeout=120) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            for line in reply:
                if line.startswith(b"data: "):
                    yield json.loads(line.removeprefix(b"data: "))

    def health(self) -> dict[str, bool]:
        """Whether each one's health is answered with 200."""
        return {
            name: self._open(endpoint.replace("/completion", "/health"))[0] == 200
            for name, endpoint in self.endpoints.items()
        }

    def _request(self, specialist: str, body: bytes) -> urllib.request.Request:
        headers = {"Content-Type": "application/json"}
        return urllib.request.Request(self.endpoints[specialist], data=body, headers=headers)

    def _open(self, request: str | urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                text = error.read()
            return error.code, json.loads(text) if text.startswith(b"{") else text

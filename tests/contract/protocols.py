"""How each kind of server words what it says: the bodies of its real protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tests.standin import fault as anthropic_fault
from tests.standin import message, models

Body = dict[str, Any]
LOST = -9999.0


@dataclass(frozen=True)
class Answer:
    """What a server says. ``likely`` has the probabilities of the first token, if it gives any."""

    text: str
    likely: Mapping[str, float] = field(default_factory=dict)
    tokens_in: int = 100
    tokens_out: int = 5
    cached: int = 0
    written: int = 0
    cut_off: bool = False
    thoughts: int = 0
    """Tokens that are billed, but counted in the total alone."""
    reason: str = ""
    """Why it ended, in the server's own word, where that is not told by ``cut_off``."""
    refusal: str | None = None
    """OpenAI's own field for a refusal in words."""


@dataclass(frozen=True)
class Asked:
    """What a server was asked, whatever the protocol."""

    system: str
    prompt: str
    body: Body
    headers: Mapping[str, str]


class Wording(Protocol):
    """One protocol."""

    def get(self, path: str) -> Body | None:
        """What a look at a path shows, or ``None``."""
        ...

    def chat(self, path: str) -> bool:
        """Whether a question is asked at that path."""
        ...

    def aside(self, path: str, body: Body) -> Body | None:
        """The answer to a POST that is no question, or ``None``."""
        ...

    def asked(self, body: Body, headers: Mapping[str, str]) -> Asked:
        """The question in a body."""
        ...

    def answered(self, body: Body, answer: Answer) -> Body:
        """The body that gives an answer."""
        ...

    def refused(self, status: int, kind: str, said: str) -> Body:
        """The body of an error."""
        ...


class OpenAI:
    """Chat completions."""

    def get(self, path: str) -> Body | None:
        one = {"id": "standin", "object": "model", "created": 1, "owned_by": "nobody"}
        return {"object": "list", "data": [one]} if path == "/v1/models" else None

    def chat(self, path: str) -> bool:
        return path == "/v1/chat/completions"

    def aside(self, path: str, body: Body) -> Body | None:
        return None

    def asked(self, body: Body, headers: Mapping[str, str]) -> Asked:
        return _of_messages(body, headers)

    def answered(self, body: Body, answer: Answer) -> Body:
        logprobs = None
        if body.get("logprobs") and answer.likely:
            logprobs = {"content": _logprobs(answer), "refusal": None}
        said = {"role": "assistant", "content": answer.text, "refusal": answer.refusal}
        reason = answer.reason or ("length" if answer.cut_off else "stop")
        choice = {"index": 0, "message": said, "logprobs": logprobs, "finish_reason": reason}
        details = {"cached_tokens": answer.cached, "cache_write_tokens": answer.written}
        tokens_in = answer.tokens_in + answer.cached + answer.written
        usage = {
            "prompt_tokens": tokens_in,
            "completion_tokens": answer.tokens_out,
            "total_tokens": tokens_in + answer.tokens_out + answer.thoughts,
            "prompt_tokens_details": details,
        }
        head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "standin"}
        return {**head, "choices": [choice], "usage": usage}

    def refused(self, status: int, kind: str, said: str) -> Body:
        return {"error": {"message": said or kind, "type": kind, "param": None, "code": kind}}


class Anthropic:
    """The Messages API."""

    def get(self, path: str) -> Body | None:
        return dict(models()["body"]) if path == "/v1/models" else None

    def chat(self, path: str) -> bool:
        return path == "/v1/messages"

    def aside(self, path: str, body: Body) -> Body | None:
        return None

    def asked(self, body: Body, headers: Mapping[str, str]) -> Asked:
        system = body.get("system", "")
        if isinstance(system, list):
            system = "".join(block["text"] for block in system)
        return Asked(system, body["messages"][0]["content"], body, headers)

    def answered(self, body: Body, answer: Answer) -> Body:
        said: Body = dict(message(answer.text)["body"])
        if "tools" in body:
            tool = {"type": "tool_use", "id": "t", "name": body["tools"][0]["name"]}
            said["content"] = [{**tool, "input": json.loads(answer.text)}]
        said["stop_reason"] = answer.reason or ("max_tokens" if answer.cut_off else "end_turn")
        said["usage"] = {
            "input_tokens": answer.tokens_in,
            "output_tokens": answer.tokens_out,
            "cache_read_input_tokens": answer.cached,
            "cache_creation_input_tokens": answer.written,
        }
        return said

    def refused(self, status: int, kind: str, said: str) -> Body:
        return dict(anthropic_fault(status, kind, said)["body"])


class Ollama:
    """Ollama's own chat."""

    def __init__(self, *names: str) -> None:
        self.names = list(names) or ["standin:latest"]

    def get(self, path: str) -> Body | None:
        listed = [{"name": name, "model": name, "size": 7_000_000} for name in self.names]
        return {"models": listed} if path == "/api/tags" else None

    def chat(self, path: str) -> bool:
        return path == "/api/chat"

    def aside(self, path: str, body: Body) -> Body | None:
        return None

    def asked(self, body: Body, headers: Mapping[str, str]) -> Asked:
        return _of_messages(body, headers)

    def answered(self, body: Body, answer: Answer) -> Body:
        said = {
            "model": body["model"],
            "created_at": "2025-01-01T00:00:00Z",
            "message": {"role": "assistant", "content": answer.text},
            "done": True,
            "done_reason": "length" if answer.cut_off else "stop",
            "prompt_eval_count": answer.tokens_in,
            "eval_count": answer.tokens_out,
        }
        if body.get("logprobs") and answer.likely:
            said["logprobs"] = _logprobs(answer)
        return said

    def refused(self, status: int, kind: str, said: str) -> Body:
        return {"error": said or kind}


class LlamaServer:
    """llama.cpp's own server; its tokens are bytes, and 256 ends an answer."""

    END = "<|end|>"

    def get(self, path: str) -> Body | None:
        return {"/health": {"status": "ok"}, "/props": {"eos_token": self.END}}.get(path)

    def chat(self, path: str) -> bool:
        return path == "/completion"

    def aside(self, path: str, body: Body) -> Body | None:
        if path == "/apply-template":
            said = "".join(f"<{m['role']}>{m['content']}{self.END}" for m in body["messages"])
            return {"prompt": f"{said}<assistant>"}
        if path == "/tokenize":
            return {"tokens": self._tokens(body["content"], markup=body["parse_special"])}
        return None

    def asked(self, body: Body, headers: Mapping[str, str]) -> Asked:
        text = self._text(body["prompt"])
        _, _, rest = text.rpartition("<system>")
        system, _, rest = rest.rpartition("<user>")
        prompt, _, _ = rest.rpartition(f"{self.END}<assistant>")
        return Asked(system.removesuffix(self.END), prompt, body, headers)

    def answered(self, body: Body, answer: Answer) -> Body:
        said: Body = {
            "content": answer.text,
            "tokens_evaluated": answer.tokens_in + answer.cached,
            "tokens_predicted": answer.tokens_out,
            "stop_type": "limit" if answer.cut_off else "eos",
            "timings": {"cache_n": answer.cached},
        }
        if body.get("n_probs"):
            said["completion_probabilities"] = [{"top_probs": self._probs(body, answer)}]
        return said

    def refused(self, status: int, kind: str, said: str) -> Body:
        return {"error": {"code": status, "message": said or kind, "type": kind}}

    def _tokens(self, text: str, *, markup: bool) -> list[int]:
        if not markup:
            return list(text.encode())
        first, *others = text.split(self.END)
        tokens = list(first.encode())
        for other in others:
            tokens += [256, *other.encode()]
        return tokens

    def _text(self, tokens: list[int]) -> str:
        return "".join(self.END if t == 256 else chr(t) for t in tokens)

    def _probs(self, body: Body, answer: Answer) -> list[Body]:
        """What follows, where the answer is one of ``likely`` with these probabilities."""
        said = self._text(body["prompt"]).rpartition("Answer:")[2]
        whole = {f" {text}{chr(256)}": p for text, p in answer.likely.items()}
        here = {text: p for text, p in whole.items() if text.startswith(said)}
        likely: dict[int, float] = {}
        for text, p in here.items():
            token = ord(text[len(said)])
            likely[token] = likely.get(token, 0.0) + p / (sum(here.values()) or 1)
        if not said:  # elsewhere the answer is one of them
            share = sum(answer.likely.values())
            likely = {t: p * share for t, p in likely.items()} | {ord("?"): 1 - share}
        lift = {token: math.exp(by) for token, by in body["logit_bias"]}
        lifted = {t: p * lift.get(t, 1.0) for t, p in likely.items()}
        total = sum(lifted.values())
        return [{"id": t, "token": chr(t), "prob": p / total} for t, p in lifted.items()]


def _of_messages(body: Body, headers: Mapping[str, str]) -> Asked:
    said = [(one["role"], one["content"]) for one in body["messages"]]
    system = said[0][1] if said[0][0] == "system" else ""
    assert said[-1][0] == "user"
    return Asked(system, said[-1][1], body, headers)


def _logprobs(answer: Answer) -> list[Body]:
    """The first token is the text's beginning that is among the likely ones."""
    tops = [
        {"token": token, "bytes": None, "logprob": math.log(p) if p else LOST}
        for token, p in answer.likely.items()
    ]
    first = next(top for top in tops if answer.text.startswith(str(top["token"])))
    return [{**first, "top_logprobs": tops}]

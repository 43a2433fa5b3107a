"""How each kind of server words what it says: the bodies of its real protocol."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
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

    def streamed(self, body: Body, answer: Answer) -> list[str]:
        """The same answer as a stream, chunk by chunk."""
        ...

    def broken(self, said: str) -> str:
        """The chunk with which a stream ends that failed."""
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

    def streamed(self, body: Body, answer: Answer) -> list[str]:
        whole = self.answered(body, answer)
        [choice] = whole["choices"]
        head = {k: v for k, v in whole.items() if k not in ("choices", "usage")}
        head["object"] = "chat.completion.chunk"
        deltas: list[Body] = [{"role": "assistant", "content": ""}]
        deltas += [{"content": part} for part in _parts(answer.text)]
        if answer.refusal is not None:
            deltas.append({"refusal": answer.refusal})
        chunks = [
            {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
            for delta in deltas
        ]
        end = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
        chunks.append({**head, "choices": [end]})
        if body.get("stream_options", {}).get("include_usage"):
            chunks.append({**head, "choices": [], "usage": whole["usage"]})
        return [*map(_event, chunks), "data: [DONE]\n\n"]

    def broken(self, said: str) -> str:
        return _event({"error": {"message": said, "type": "server_error", "code": None}})

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

    def streamed(self, body: Body, answer: Answer) -> list[str]:
        said = self.answered(body, answer)
        usage = said["usage"]
        start = {**said, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
        block = {"type": "text", "text": ""}
        events: list[Body] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": block},
        ]
        for part in _parts(answer.text):
            delta = {"type": "text_delta", "text": part}
            events.append({"type": "content_block_delta", "index": 0, "delta": delta})
        ending = {"stop_reason": said["stop_reason"], "stop_sequence": None}
        told = {"output_tokens": usage["output_tokens"]}
        events += [
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ending, "usage": told},
            {"type": "message_stop"},
        ]
        return [f"event: {event['type']}\n{_event(event)}" for event in events]

    def broken(self, said: str) -> str:
        error = {"type": "overloaded_error", "message": said}
        return "event: error\n" + _event({"type": "error", "error": error})


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

    def streamed(self, body: Body, answer: Answer) -> list[str]:
        last = self.answered(body, answer)
        head = {"model": last["model"], "created_at": last["created_at"], "done": False}
        parts = [
            {**head, "message": {"role": "assistant", "content": part}}
            for part in _parts(answer.text)
        ]
        end = {**last, "message": {"role": "assistant", "content": ""}}
        return [json.dumps(one) + "\n" for one in (*parts, end)]

    def broken(self, said: str) -> str:
        return json.dumps({"error": said}) + "\n"

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

    def streamed(self, body: Body, answer: Answer) -> list[str]:
        parts: list[Body] = [{"content": part, "stop": False} for part in _parts(answer.text)]
        end = {**self.answered(body, answer), "content": "", "stop": True}
        return [_event(one) for one in (*parts, end)]

    def broken(self, said: str) -> str:
        return _event({"error": {"code": 500, "message": said, "type": "server_error"}})

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


def _parts(text: str) -> Iterator[str]:
    """A text as a server might cut it up."""
    return (text[start : start + 3] for start in range(0, len(text), 3))


def _event(data: Body) -> str:
    return f"data: {json.dumps(data)}\n\n"


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

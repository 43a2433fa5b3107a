"""Prompts as a Hugging Face model reads them: its own chat template and tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from routing.decision import ChoiceOutput
from workers.backends.base import Request
from workers.label_paths import Path, whole_paths

ANSWER_LEAD = "Answer:"
"""Labels are scored as what follows it."""
MARK = "\x02"


class Prompts:
    """Makes tokens of requests; what the asker wrote is never read as markup."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._markup: dict[tuple[str, bool], tuple[list[int], list[int]]] = {}
        end = tokenizer.eos_token_id
        self.ends = frozenset() if end is None else frozenset({int(end)})
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else end

    def tokens(self, request: Request) -> list[int]:
        """The whole prompt."""
        key = (request.system, isinstance(request.output, ChoiceOutput))
        if key not in self._markup:
            self._markup[key] = self._tokenize_markup(*key)
        before, after = self._markup[key]
        return [*before, *self._plain(request.prompt), *after]

    def labels(self, labels: Sequence[str]) -> tuple[Path, ...]:
        """Each label's tokens, ended where it begins another."""
        tokens = [self._plain(" " + label) for label in labels]
        return whole_paths(tokens, next(iter(self.ends), None))

    def _tokenize_markup(self, system: str, choice: bool) -> tuple[list[int], list[int]]:
        said = [{"role": "user", "content": MARK * 2}]
        if system:
            said.insert(0, {"role": "system", "content": MARK})
        if self._tokenizer.chat_template:
            text = self._tokenizer.apply_chat_template(
                said, tokenize=False, add_generation_prompt=True
            )
        else:
            text = f"{MARK}\n\n{MARK * 2}\n\n" if system else f"{MARK * 2}\n\n"
        before, after = text.split(MARK * 2)
        first, *between = before.split(MARK)
        tokens = self._marked(first)
        if between:
            tokens += [*self._plain(system), *self._marked(between[0])]
        return tokens, self._marked(after + (ANSWER_LEAD if choice else ""))

    def _marked(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _plain(self, text: str) -> list[int]:
        options = {"add_special_tokens": False, "split_special_tokens": True}
        return list(self._tokenizer(text, **options)["input_ids"])

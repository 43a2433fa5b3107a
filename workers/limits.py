"""Tells before submission whether a prompt can fit any model of its plan."""

from __future__ import annotations

import ctypes
from pathlib import Path

from config.catalog import BackendName
from config.errors import InputError
from config.settings import Settings
from routing.decision import Decision, Plan
from workers.models import weights_path


def check_fits(settings: Settings, plan: Plan, decision: Decision) -> None:
    """Count tokens where the prompt is long enough to matter.

    Raises:
        InputError: the prompt is longer than the context of every model in its plan.
    """
    text = decision.system + decision.prompt
    worst = ""
    for lane in plan.lanes:
        model = settings.catalog.lane_model(lane)
        if len(text.encode()) < model.context:
            return  # no tokenizer makes more than one token of a byte
        if model.backend is not BackendName.LLAMA_CPP:
            return
        count = count_tokens(weights_path(settings, settings.catalog.lanes[lane].model), text)
        if count < model.context:
            return
        worst = f"prompt of {count} tokens exceeds the context of {lane} ({model.context} tokens)"
    raise InputError(f"{worst}, and no other lane has a larger one: shorten the prompt")


def count_tokens(path: Path, text: str) -> int:
    """Tokens of ``text`` in a model's vocabulary; only the vocabulary is loaded."""
    import llama_cpp

    from workers.engine.context import silence

    silence()
    params = llama_cpp.llama_model_default_params()
    params.vocab_only = True
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise InputError(f"{path} is not a model that llama.cpp can load: pull it again")
    try:
        data = text.encode()
        buffer = (llama_cpp.llama_token * (len(data) + 8))()
        vocab = llama_cpp.llama_model_get_vocab(model)
        return int(
            llama_cpp.llama_tokenize(
                vocab, data, len(data), buffer, ctypes.c_int(len(data) + 8), False, False
            )
        )
    finally:
        llama_cpp.llama_model_free(model)

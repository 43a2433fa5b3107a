"""Vectors of prompts, made in this process: nothing leaves the machine."""

from __future__ import annotations

import logging
import re
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from config.caching import EmbedderName

Vectors = NDArray[np.float32]
"""One row a text, each of length 1, or of zeros for a text without content."""


class Embedder(Protocol):
    """Turns texts into directions: the closer two are, the more alike the texts."""

    @property
    def name(self) -> str:
        """Which one it is; vectors of different ones are never compared."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors."""
        ...


class NgramEmbedder:
    """Counts of the letter sequences of each word, hashed into a fixed number of places.

    Words are folded to lower case and marked at both ends. A sequence that stands there n times
    counts 1 + ln n, with a sign from its hash (Weinberger et al. 2009, "Feature Hashing for Large
    Scale Multitask Learning"), so that collisions cancel out in the mean. No model and no seed:
    the same text gives the same vector everywhere.
    """

    name = "ngrams-1"
    _PLACES = 512
    _LENGTHS = (3, 4, 5)
    _WORD = re.compile(r"\w+")

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors, of 512 numbers."""
        found = np.zeros((len(texts), self._PLACES), dtype=np.float32)
        for row, text in enumerate(texts):
            for gram, count in self._grams(text).items():
                place = zlib.crc32(gram.encode("utf-8", "replace"))
                sign = 1.0 if place & 0x80000000 else -1.0
                found[row, place % self._PLACES] += sign * (1.0 + np.log(count))
        return unit(found)

    def _grams(self, text: str) -> Counter[str]:
        grams: Counter[str] = Counter()
        for word, times in Counter(self._WORD.findall(text.casefold())).items():
            marked = f" {word} "
            for length in self._LENGTHS:
                for start in range(max(1, len(marked) - length + 1)):
                    grams[marked[start : start + length]] += times
        return grams


class WordLlamaEmbedder:
    """Means of static word vectors that the package ``wordllama`` ships; nothing is fetched."""

    name = "wordllama-l2-256"

    def __init__(self) -> None:
        """Load the vectors: about 33 MB of memory."""
        kept = logging.root.handlers[:], logging.root.level
        import wordllama  # the extra; its import sets up logging for everybody

        logging.root.handlers[:] = kept[0]
        logging.root.setLevel(kept[1])
        # Named, for 0.4.0 looks for the tokenizer that it ships in a folder that it lacks.
        shipped = Path(wordllama.__file__).parent
        self._model: Any = wordllama.WordLlama.load(cache_dir=shipped, disable_download=True)

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The texts' vectors, of 256 numbers."""
        # A text of nothing has no mean.
        found = np.asarray(self._model.embed([text or " " for text in texts]), dtype=np.float32)
        return unit(np.nan_to_num(found))


NAMES = {EmbedderName.NGRAMS: NgramEmbedder.name, EmbedderName.WORDLLAMA: WordLlamaEmbedder.name}
"""What audits and entries call each embedder: it changes whenever its vectors do."""


def open_embedder(name: EmbedderName) -> Embedder:
    """The embedder of that name."""
    return NgramEmbedder() if name is EmbedderName.NGRAMS else WordLlamaEmbedder()


def unit(rows: Vectors) -> Vectors:
    """The rows at length 1; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def packed(vector: Vectors) -> bytes:
    """A vector as the ledger keeps it: float16, little-endian."""
    return vector.astype("<f2").tobytes()


def nearest(vector: Vectors, kept: Sequence[bytes]) -> tuple[int, float]:
    """Which of ``kept`` is closest to a vector, and the cosine between them, at most 1."""
    rows = np.frombuffer(b"".join(kept), dtype="<f2").reshape(len(kept), -1).astype(np.float32)
    cosines = unit(rows) @ vector
    best = int(np.argmax(cosines))
    return best, min(1.0, float(cosines[best]))

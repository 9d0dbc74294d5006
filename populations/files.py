"""Small files of a run folder. No torch."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str | bytes) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(text.encode() if isinstance(text, str) else text)
    os.replace(temporary, path)

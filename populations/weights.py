"""Weights on disk: safetensors, written durably, read only if they are the recorded ones."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from populations.files import START, sync


class WeightsError(ValueError):
    """Stored weights are missing, damaged, or belong to another genome, or cannot be stored."""


def save_weights(model: nn.Module, path: Path) -> str:
    """Stores a model's state durably; returns the SHA-256 of the file.

    Raises:
        OSError: When it cannot be written.
        WeightsError: When safetensors finds so.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    temporary = path.with_suffix(".tmp")
    try:
        save_file(state, temporary)
    except SafetensorError as error:
        raise WeightsError(f"weights {path} cannot be written: {error}") from None
    data = temporary.read_bytes()
    sync(temporary)
    os.replace(temporary, path)
    return hashlib.sha256(data).hexdigest()


def load_weights(model: nn.Module, path: Path, sha256: str) -> None:
    """Loads a stored state into the model it belongs to.

    Raises:
        WeightsError: When the file is missing, damaged, or does not fit the model.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise WeightsError(f"weights {path} cannot be read: {error.strerror}") from None
    # safetensors notices truncation but not a flipped bit.
    if hashlib.sha256(data).hexdigest() != sha256:
        raise WeightsError(f"weights {path} are damaged: their SHA-256 is not the recorded one")
    try:
        model.load_state_dict(load(data))
    except (SafetensorError, RuntimeError) as error:
        raise WeightsError(f"weights {path} do not fit their genome: {error}") from None


def load_start(model: nn.Module, run_dir: Path) -> None:
    """Loads the weights that the founder of a run starts from, if there are any.

    Raises:
        WeightsError: When they are damaged or do not fit.
    """
    path = run_dir / START
    if not path.exists():
        return
    try:
        model.load_state_dict(load(path.read_bytes()))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise WeightsError(f"weights {path} do not fit the founder: {error}") from None

"""Many networks: founders, individuals, their lineage, workers and the evolution itself."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from populations.config import Config
    from populations.lineage import load_run
    from populations.run import evolve

_HOMES = {"Config": "config", "evolve": "run", "load_run": "lineage"}

__all__ = ["Config", "evolve", "load_run"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"populations.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'populations' has no attribute {name!r}")

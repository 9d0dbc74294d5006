"""One network: its genome, edits, cost, inheritance, training and saliency.

The genome part needs no torch and imports in milliseconds; names of the torch part are loaded on first
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evo_topo.cost import activation_bytes, count_flops, count_macs, count_params
from evo_topo.edits import (
    Edit,
    EditError,
    PruneLayer,
    PruneUnits,
    SplitLayer,
    SplitUnits,
    edit_from_json,
    legal_edits,
    random_edit,
)
from evo_topo.genome import Genome, GenomeError, Node
from evo_topo.units import unit_table

if TYPE_CHECKING:
    from evo_topo.inheritance import inherit
    from evo_topo.phenotype import build

_TORCH_PART = {
    "build": "phenotype",
    "inherit": "inheritance",
}

__all__ = [
    "Edit",
    "EditError",
    "Genome",
    "GenomeError",
    "Node",
    "PruneLayer",
    "PruneUnits",
    "SplitLayer",
    "SplitUnits",
    "activation_bytes",
    "build",
    "count_flops",
    "count_macs",
    "count_params",
    "edit_from_json",
    "inherit",
    "legal_edits",
    "random_edit",
    "unit_table",
]


def __getattr__(name: str) -> Any:
    if name in _TORCH_PART:
        return getattr(import_module(f"evo_topo.{_TORCH_PART[name]}"), name)
    raise AttributeError(f"module 'evo_topo' has no attribute {name!r}")

"""One network: its genome, edits, cost, inheritance, training and saliency.

The genome part needs no torch and imports in milliseconds; names of the torch part are loaded on first
use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from evo_topo.cost import activation_bytes, count_bops, count_flops, count_macs, count_params, parameter_bits
from evo_topo.edits import (
    KINDS,
    SITE_KINDS,
    STRUCTURAL_KINDS,
    AddUnits,
    Binarise,
    Debinarise,
    DownsampleEarlier,
    DownsampleLater,
    Edit,
    EditError,
    Factorise,
    Fuse,
    GrowConnections,
    GrowKernel,
    MergeLayers,
    PruneBranch,
    PruneConnections,
    PruneLayer,
    PruneUnits,
    ShrinkKernel,
    SplitBranch,
    SplitLayer,
    SplitUnits,
    Trade,
    edit_from_json,
    legal_edits,
    random_edit,
)
from evo_topo.genome import Genome, GenomeError, Node
from evo_topo.mutation import Proposal, propose, random_prices
from evo_topo.prices import PricedEdit, Prices, UnitPrices
from evo_topo.recipe import Recipe
from evo_topo.units import UnitGroup, unit_table

if TYPE_CHECKING:
    from evo_topo.datasets import load_dataset
    from evo_topo.evaluation import evaluate, reestimate_batchnorm
    from evo_topo.exporting import ExportError, export, read_export
    from evo_topo.importing import UnsupportedModuleError, from_module
    from evo_topo.inheritance import Probe, inherit, inherit_optimizer_state
    from evo_topo.phenotype import build
    from evo_topo.saliency import gate_statistics, obd_prices, obd_saliency, price, prune_to, weight_obd
    from evo_topo.task import Task
    from evo_topo.training import train

_TORCH_PART = {
    "ExportError": "exporting",
    "Probe": "inheritance",
    "Task": "task",
    "build": "phenotype",
    "UnsupportedModuleError": "importing",
    "evaluate": "evaluation",
    "export": "exporting",
    "from_module": "importing",
    "gate_statistics": "saliency",
    "inherit": "inheritance",
    "inherit_optimizer_state": "inheritance",
    "load_dataset": "datasets",
    "obd_prices": "saliency",
    "obd_saliency": "saliency",
    "price": "saliency",
    "prune_to": "saliency",
    "read_export": "exporting",
    "reestimate_batchnorm": "evaluation",
    "train": "training",
    "weight_obd": "saliency",
}

__all__ = [
    "KINDS",
    "SITE_KINDS",
    "STRUCTURAL_KINDS",
    "AddUnits",
    "Binarise",
    "Debinarise",
    "DownsampleEarlier",
    "DownsampleLater",
    "Edit",
    "EditError",
    "ExportError",
    "Factorise",
    "Fuse",
    "Genome",
    "GenomeError",
    "GrowConnections",
    "GrowKernel",
    "MergeLayers",
    "Node",
    "PricedEdit",
    "Prices",
    "Probe",
    "Proposal",
    "PruneBranch",
    "PruneConnections",
    "PruneLayer",
    "PruneUnits",
    "Recipe",
    "ShrinkKernel",
    "SplitBranch",
    "SplitLayer",
    "SplitUnits",
    "Task",
    "Trade",
    "UnitGroup",
    "UnitPrices",
    "UnsupportedModuleError",
    "activation_bytes",
    "build",
    "count_bops",
    "count_flops",
    "count_macs",
    "count_params",
    "edit_from_json",
    "evaluate",
    "export",
    "from_module",
    "gate_statistics",
    "inherit",
    "inherit_optimizer_state",
    "legal_edits",
    "load_dataset",
    "obd_prices",
    "obd_saliency",
    "parameter_bits",
    "price",
    "propose",
    "prune_to",
    "random_edit",
    "random_prices",
    "read_export",
    "reestimate_batchnorm",
    "train",
    "unit_table",
    "weight_obd",
]


def __getattr__(name: str) -> Any:
    if name in _TORCH_PART:
        return getattr(import_module(f"evo_topo.{_TORCH_PART[name]}"), name)
    raise AttributeError(f"module 'evo_topo' has no attribute {name!r}")

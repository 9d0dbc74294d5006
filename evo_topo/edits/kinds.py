"""The kinds of edits, and which of them prune or grow."""

from __future__ import annotations

from evo_topo.edits.add_units import AddUnits
from evo_topo.edits.connection_edits import GrowConnections, PruneConnections
from evo_topo.edits.factorise import Factorise
from evo_topo.edits.fuse import Fuse
from evo_topo.edits.kernel_edits import GrowKernel, ShrinkKernel
from evo_topo.edits.layer_edits import PruneLayer, SplitLayer
from evo_topo.edits.merge_layers import MergeLayers
from evo_topo.edits.precision_edits import Binarise, Debinarise
from evo_topo.edits.prune_branch import PruneBranch
from evo_topo.edits.resolution_edits import DownsampleEarlier, DownsampleLater
from evo_topo.edits.split_branch import SplitBranch
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits

SingleEdit = (
    PruneUnits
    | SplitUnits
    | AddUnits
    | PruneLayer
    | SplitLayer
    | MergeLayers
    | PruneBranch
    | SplitBranch
    | ShrinkKernel
    | GrowKernel
    | Factorise
    | Fuse
    | DownsampleEarlier
    | DownsampleLater
    | PruneConnections
    | GrowConnections
    | Binarise
    | Debinarise
)
"""Every kind of edit that is not made of others."""

PRUNES: tuple[type[SingleEdit], ...] = (
    PruneUnits,
    PruneLayer,
    MergeLayers,
    PruneBranch,
    ShrinkKernel,
    Factorise,
    DownsampleEarlier,
)
"""Kinds that save operations, as torch counts them."""

GROWTHS: tuple[type[SingleEdit], ...] = (
    AddUnits,
    SplitUnits,
    SplitLayer,
    SplitBranch,
    GrowKernel,
    DownsampleLater,
)
"""Kinds that add operations or parameters; all but the last keep the function."""

WEIGHT_KINDS: tuple[type[SingleEdit], ...] = (PruneConnections, GrowConnections, Binarise, Debinarise)
"""Kinds that make layers sparse or binary, or dense and real again."""

"""Edits: one mutation of a genome as frozen data, from which both child and inheritance follow.

| scale       | prune                       | grow                                                   |
|-------------|-----------------------------|--------------------------------------------------------|
| units       | `PruneUnits`                | `SplitUnits` (Net2Wider, Chen et al. 2016), `AddUnits` |
| layers      | `PruneLayer`, `MergeLayers` | `SplitLayer` (Net2Deeper, same paper)                  |
| branches    | `PruneBranch`               | `SplitBranch`                                          |
| kernels     | `ShrinkKernel`              | `GrowKernel`                                           |
| operators   | `Factorise`                 | `Fuse`, its exact counterpart                          |
| resolution  | `DownsampleEarlier`         | `DownsampleLater`                                      |
| connections | `PruneConnections` (OBD)    | `GrowConnections` (RigL, Evci et al. 2020)             |
| precision   | `Binarise` (BinaryNet)      | `Debinarise`                                           |

A `Trade` is a prune and a growth as one child, drawn by default but listed on request alone.
`edit.apply(genome)` is pure. `edit.unit_map(genome)` says from which unit of the parent each unit of
the child comes; `edit.joint(genome)` where a local edit meets what it leaves alone. The last two rows are
listed and drawn on request alone, for torch does not count what they save. No torch.
"""

from evo_topo.edits.add_units import AddUnits
from evo_topo.edits.base import Edit, EditError, RandomSource, draw
from evo_topo.edits.connection_edits import GrowConnections, PruneConnections
from evo_topo.edits.drawing import (
    KINDS,
    SITE_KINDS,
    STRUCTURAL_KINDS,
    AnyEdit,
    edit_from_json,
    legal_edits,
    random_edit,
)
from evo_topo.edits.factorise import Factorise
from evo_topo.edits.flop_changes import FlopChanges
from evo_topo.edits.fuse import Fuse
from evo_topo.edits.kernel_edits import GrowKernel, ShrinkKernel
from evo_topo.edits.kinds import GROWTHS, PRUNES, SingleEdit
from evo_topo.edits.layer_edits import PruneLayer, SplitLayer, layer_chain
from evo_topo.edits.merge_layers import MergeLayers
from evo_topo.edits.precision_edits import Binarise, Debinarise
from evo_topo.edits.prune_branch import PruneBranch
from evo_topo.edits.resolution_edits import DownsampleEarlier, DownsampleLater
from evo_topo.edits.split_branch import SplitBranch
from evo_topo.edits.trade import Trade
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits, spare_units

__all__ = [
    "GROWTHS",
    "KINDS",
    "PRUNES",
    "SITE_KINDS",
    "STRUCTURAL_KINDS",
    "AddUnits",
    "AnyEdit",
    "Binarise",
    "Debinarise",
    "DownsampleEarlier",
    "DownsampleLater",
    "Edit",
    "EditError",
    "Factorise",
    "FlopChanges",
    "Fuse",
    "GrowConnections",
    "GrowKernel",
    "MergeLayers",
    "PruneBranch",
    "PruneConnections",
    "PruneLayer",
    "PruneUnits",
    "RandomSource",
    "ShrinkKernel",
    "SingleEdit",
    "SplitBranch",
    "SplitLayer",
    "SplitUnits",
    "Trade",
    "draw",
    "edit_from_json",
    "layer_chain",
    "legal_edits",
    "random_edit",
    "spare_units",
]

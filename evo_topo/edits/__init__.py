"""Edits: one mutation of a genome as frozen data, from which both child and inheritance follow.

|             | less                      | more                                       |
|-------------|---------------------------|--------------------------------------------|
| units       | `PruneUnits`              | `SplitUnits` (Net2Wider, Chen et al. 2016) |
| layers      | `PruneLayer`              | `SplitLayer` (Net2Deeper, same paper)      |
| connections | `PruneConnections` (OBD)  | `GrowConnections` (RigL, Evci et al. 2020) |
| precision   | `Binarise` (BinaryNet)    | `Debinarise`                               |

`edit.apply(genome)` is pure. `edit.unit_map(genome)` says from which unit of the parent each unit of
the child comes; nodes that the parent lacks start as the identity. No torch.
"""

from evo_topo.edits.base import Edit, EditError, RandomSource
from evo_topo.edits.connection_edits import GrowConnections, PruneConnections
from evo_topo.edits.drawing import (
    AnyEdit,
    draw,
    edit_from_json,
    legal_edits,
    legal_layer_edits,
    random_edit,
)
from evo_topo.edits.layer_edits import PruneLayer, SplitLayer, layer_chain
from evo_topo.edits.precision_edits import Binarise, Debinarise
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits, spare_units

__all__ = [
    "AnyEdit",
    "Binarise",
    "Debinarise",
    "Edit",
    "EditError",
    "GrowConnections",
    "PruneConnections",
    "PruneLayer",
    "PruneUnits",
    "RandomSource",
    "SplitLayer",
    "SplitUnits",
    "draw",
    "edit_from_json",
    "layer_chain",
    "legal_edits",
    "legal_layer_edits",
    "random_edit",
    "spare_units",
]

"""By how much many edits of one genome change its FLOPs."""

from __future__ import annotations

from evo_topo.cost import count_flops, unit_macs
from evo_topo.edits.drawing import AnyEdit
from evo_topo.edits.unit_edits import PruneUnits, SplitUnits
from evo_topo.genome import Genome


class FlopChanges:
    """FLOP changes of edits: of single units that count alike, one alone is applied.

    Args:
        genome: The parent of all edits.
    """

    def __init__(self, genome: Genome) -> None:
        self._genome, self._before = genome, count_flops(genome)
        self._unit_macs = unit_macs(genome)
        self._known: dict[tuple[type[AnyEdit], str, float], int] = {}

    def of(self, edit: AnyEdit) -> int:
        """FLOPs of the child less those of the parent.

        Raises:
            EditError: When the edit does not apply.
        """
        match edit:
            case PruneUnits(((group, (unit,)),)) | SplitUnits(((group, (unit,)),)):
                edit.unit_map(self._genome)  # says whether this very unit can go, or be split
                alike = type(edit), group, self._unit_macs[group][unit]
                if alike not in self._known:
                    self._known[alike] = self._applied(edit)
                return self._known[alike]
        return self._applied(edit)

    def _applied(self, edit: AnyEdit) -> int:
        return count_flops(edit.apply(self._genome)) - self._before

"""What edits of one trained network are predicted to cost: plain numbers, so choosing needs no torch."""

from __future__ import annotations

import math
from itertools import chain

from msgspec import Struct

from evo_topo.edits import AnyEdit


class UnitPrices(Struct, frozen=True, forbid_unknown_fields=True):
    """Predicted loss changes of removing units of one group.

    Attributes:
        order: Units, the cheapest to remove first; each was chosen given those before it.
        cumulative: Predicted loss change when the first 1, 2, ... units of `order` are removed together.
    """

    order: tuple[int, ...]
    cumulative: tuple[float, ...]


class JointOrder(Struct, frozen=True, forbid_unknown_fields=True):
    """Predicted loss changes of removing units of all groups together, in one order out of many.

    Attributes:
        columns: Units in the order in which they go, numbered through over the groups of `Prices.units`.
        cumulative: Predicted loss change when the first 1, 2, ... of them are removed together.
        macs: MACs that the network then has.
    """

    columns: tuple[int, ...]
    cumulative: tuple[float, ...]
    macs: tuple[int, ...]


class PricedEdit(Struct, frozen=True, forbid_unknown_fields=True):
    """What one edit is predicted to do.

    Attributes:
        edit: The edit.
        loss_change: Predicted loss change before training; 0 where the function is kept.
        promise: Predicted loss change, at most 0, that new parameters add when they are trained.
        flop_change: FLOPs of the child minus those of the parent.
        criterion: What predicted it, see `price`.
    """

    edit: AnyEdit
    loss_change: float
    promise: float
    flop_change: int
    criterion: str


class Prices(Struct, frozen=True, forbid_unknown_fields=True):
    """Price list of one trained network.

    Attributes:
        criterion: What predicted them, such as ``obd``.
        units: By unit group.
        layers: Predicted loss change of bypassing a layer, by the name of its Conv or Linear node.
        joint: Orders over all groups together; where there are none, prices of different groups add up.
        edits: Other edits, one by one.
    """

    criterion: str
    units: dict[str, UnitPrices]
    layers: dict[str, float]
    joint: tuple[JointOrder, ...] = ()
    edits: tuple[PricedEdit, ...] = ()

    @property
    def are_finite(self) -> bool:
        """Whether no price is NaN or infinite."""
        lists = [group.cumulative for group in self.units.values()]
        lists += [order.cumulative for order in self.joint]
        edits = [(priced.loss_change, priced.promise) for priced in self.edits]
        return all(map(math.isfinite, chain(self.layers.values(), *lists, *edits)))

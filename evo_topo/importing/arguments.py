"""What the counterparts of torch's calls share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from evo_topo.importing.values import Stored
from evo_topo.ops import Shape

Call = Callable[..., Any]
"""The counterpart of a call: reads a `Lowering` and the call's own arguments; returns its value."""


def number_of(value: Any) -> float | None:
    """A plain number, or a stored one that is not trained."""
    if isinstance(value, Stored) and value.tensor.numel() == 1 and not value.is_parameter:
        return float(value.tensor)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def for_each(value: Any, dims: int) -> Shape:
    """A window setting for each extent, from one for all or one for each."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple([int(v) for v in values]) if len(values) == dims else (int(values[0]),) * dims

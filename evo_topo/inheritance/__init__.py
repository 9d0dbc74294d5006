"""What a child of an edit takes over from its parent: weights, statistics, optimiser state."""

from evo_topo.inheritance.moments import inherit_optimizer_state
from evo_topo.inheritance.probe import Probe
from evo_topo.inheritance.rule import inherit, inherit_some, new_norms

__all__ = ["Probe", "inherit", "inherit_optimizer_state", "inherit_some", "new_norms"]

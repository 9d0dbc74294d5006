"""An individual: one genome of a lineage, and the outcome of developing it. Plain records."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from evo_topo.cost import count_flops, count_macs, count_params
from evo_topo.edits import AnyEdit
from evo_topo.genome import Genome
from evo_topo.prices import Prices

Status = Literal["ok", "diverged", "out-of-memory", "failed", "crashed"]


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker reports of one child: plain numbers; the weights stay on disk.

    Attributes:
        status: ``ok``, or why the child has no weights.
        reason: The error in words where the status is not ``ok``.
        inherited_loss: Mean validation loss right after inheritance, before any training.
        loss: Mean validation loss after training.
        accuracy: Validation accuracy after training.
        correct: One bit per validation example, example 0 the lowest, as hexadecimal digits.
        examples: Training examples seen.
        flops: Training FLOPs: examples x 3 (forward, and backward twice that) x FLOPs of the genome.
        seconds: Wall-clock of the whole development.
        device: Where it was trained.
        weights_sha256: Digest of the weights' file.
        prices: Predicted loss changes of edits of this network.
    """

    status: Status
    reason: str = ""
    inherited_loss: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    correct: str = "0"
    examples: int = 0
    flops: int = 0
    seconds: float = 0.0
    device: str = ""
    weights_sha256: str = ""
    prices: Prices | None = None


class Individual(Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """One member of a lineage.

    Attributes:
        id: Number in order of birth; the founder is 0.
        parent: The parent's id; None for the founder.
        generation: Generation of birth; the founder's is 0.
        edit: The mutation; None for the founder and for a child that only trains on.
        genome: Its network as data.
        predicted_loss_change: What the parent's prices promised for the edit.
        inherited_examples: Training examples of its ancestors, along the line of descent.
        inherited_flops: Training FLOPs of its ancestors.
        inherited_seconds: Seconds of its ancestors' development.
        outcome: What its own development gave.
    """

    id: int
    parent: int | None
    generation: int
    edit: AnyEdit | None
    genome: Genome
    predicted_loss_change: float | None
    inherited_examples: int
    inherited_flops: int
    inherited_seconds: float
    outcome: Outcome

    @property
    def is_alive(self) -> bool:
        """Whether it was developed without failure and so can be selected."""
        return self.outcome.status == "ok"

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one example."""
        return count_macs(self.genome)

    @property
    def flops(self) -> int:
        """FLOPs for one example."""
        return count_flops(self.genome)

    @property
    def params(self) -> int:
        """Trainable parameters."""
        return count_params(self.genome)

    @property
    def total_examples(self) -> int:
        """Training examples along the line of descent, its own included."""
        return self.inherited_examples + self.outcome.examples

    @property
    def total_flops(self) -> int:
        """Training FLOPs along the line of descent, its own included."""
        return self.inherited_flops + self.outcome.flops

    @property
    def total_seconds(self) -> float:
        """Seconds of development along the line of descent, its own included."""
        return self.inherited_seconds + self.outcome.seconds

"""An individual: one genome of a lineage, and the outcome of developing it. Plain records."""

from __future__ import annotations

from sys import float_info
from typing import Annotated, Literal

from msgspec import Meta, Struct

from evo_topo.cost import count_flops, count_macs, count_params
from evo_topo.edits import AnyEdit
from evo_topo.genome import Genome
from evo_topo.prices import Prices

Status = Literal["ok", "stopped", "diverged", "out-of-memory", "failed", "crashed"]

# The bounds hold for what is read from disk; records made in Python are trusted.
Count = Annotated[int, Meta(ge=0)]
Finite = Annotated[float, Meta(ge=-float_info.max, le=float_info.max)]
Duration = Annotated[float, Meta(ge=0, le=float_info.max)]


class Screened(Struct, frozen=True, forbid_unknown_fields=True):
    """An edit that was measured before anyone was trained.

    Attributes:
        edit: The mutation.
        fingerprint: Of the network that it leads to.
        flops: FLOPs of that network for one example.
        loss: Mean loss on unseen examples after inheritance and refitting; None where it was not measured.
    """

    edit: AnyEdit
    fingerprint: Annotated[str, Meta(pattern="^[0-9a-f]+$")]
    flops: Count
    loss: Finite | None


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """What a worker reports of one child: plain numbers; the weights stay on disk.

    Attributes:
        status: ``ok``, or why the child has no weights.
        reason: In words, where the status is not ``ok``: the error, or what a child that was stopped at
            half-time had been expected to reach. Else why it could not be priced, if so.
        inherited_loss: Mean loss on unseen examples right after inheritance, before any training.
        refit_loss: The same once the layers behind the change are refit to the parent; None where nothing is.
        screened: Mutations that this child was chosen from, the best first: it alone was trained. Empty
            where there was no choice.
        probe_loss: Mean loss on the same after training: what the prices predict changes of.
        halfway_loss: Mean training loss of the second quarter of the training; None where it is too short.
        loss: Mean validation loss after training.
        accuracy: Validation accuracy after training.
        soft_error: Share of validation examples that are wrong, with less noise: `evo_topo.evaluation`.
        correct: One bit per validation example, example 0 the lowest, as hexadecimal digits.
        examples: Training examples seen.
        flops: Training FLOPs: examples x 3 (forward, and backward twice that) x FLOPs of the genome.
        seconds: Wall-clock of the whole development.
        training_seconds: Of these, what training took.
        device: Where it was trained.
        weights_sha256: Digest of the weights' file.
        prices: Predicted loss changes of edits of this network; None until it is to be bred from.
    """

    status: Status
    reason: str = ""
    inherited_loss: Finite | None = None
    refit_loss: Finite | None = None
    screened: tuple[Screened, ...] = ()
    probe_loss: Finite | None = None
    halfway_loss: Finite | None = None
    loss: Finite | None = None
    accuracy: Annotated[float, Meta(ge=0, le=1)] | None = None
    soft_error: Annotated[float, Meta(ge=0, le=1)] | None = None
    correct: Annotated[str, Meta(pattern="^[0-9a-f]+$")] = "0"
    examples: Count = 0
    flops: Count = 0
    seconds: Duration = 0.0
    training_seconds: Duration = 0.0
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
        predicted_loss_change: What the parent's prices predicted for the edit, before training.
        promised_loss_change: What they promised that its new parameters add in training, at most 0.
        inherited_examples: Training examples of its ancestors, along the line of descent.
        inherited_flops: Training FLOPs of its ancestors.
        inherited_seconds: Seconds of its ancestors' development.
        outcome: What its own development gave.
        is_enlarged: Whether its edit is a large step up, after which it trained for long.
    """

    id: Count
    parent: Count | None
    generation: Count
    edit: AnyEdit | None
    genome: Genome
    predicted_loss_change: Finite | None
    promised_loss_change: Finite | None
    inherited_examples: Count
    inherited_flops: Count
    inherited_seconds: Duration
    outcome: Outcome
    is_enlarged: bool = False

    @property
    def is_alive(self) -> bool:
        """Whether it was developed to the end, without failure, and so can be selected."""
        return self.outcome.status == "ok"

    @property
    def is_failed(self) -> bool:
        """Whether something went wrong; who was stopped early neither failed nor is alive."""
        return self.outcome.status not in ("ok", "stopped")

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

"""What a driver asks a worker for, and where both find it in the run folder. Plain records, no torch."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
from msgspec import Struct

from evo_topo.recipe import Recipe
from populations.config import Criterion
from populations.individual import Outcome

WEIGHTS = "weights"
DATA = "data.safetensors"


class Teacher(Struct, frozen=True):
    """A trained network of the run that a child learns from beside the targets.

    Attributes:
        id: Its id.
        genome: JSON of its genome.
        sha256: Digest of its weights.
        share: Share of the loss that is the distance from its answers.
    """

    id: int
    genome: str
    sha256: str
    share: float


class Rival(Struct, frozen=True):
    """Another mutation that a child may start from instead.

    Attributes:
        edit: JSON of the mutation.
        examples: Training examples that the child then sees.
    """

    edit: str
    examples: int


class Order(Struct, frozen=True):
    """What a worker needs to develop one child, or to price one individual: data and paths, nothing live.

    Attributes:
        id: The child's id; the parent's own where that is priced.
        run_dir: The run folder.
        genome: JSON of the parent's genome; of its own for a founder.
        parent: The parent's id; None for a founder.
        parent_sha256: Digest of the parent's weights.
        edit: JSON of the mutation; None to train on.
        seed: Seed of the child.
        recipe: How it trains.
        probe_examples: Training examples on which edits are priced, and others on which they are measured.
        criterion: What the parent's mutations are priced by, and no child is developed; None for a child.
        rivals: Other mutations; of all, the one is trained that costs least for what it saves.
        teacher: Whom it learns from beside the targets.
        hurdle: The most that its halfway loss may be, or it is stopped there; None for no limit.
        seconds: For how long it may train: then on fewer examples than the recipe's.
        shrink: Factor of its weights before it trains, as of `shrink_and_perturb`; 1 leaves them as they are.
    """

    id: int
    run_dir: str
    genome: str
    parent: int | None
    parent_sha256: str
    edit: str | None
    seed: int
    recipe: Recipe
    probe_examples: int
    criterion: Criterion | None = None
    rivals: tuple[Rival, ...] = ()
    teacher: Teacher | None = None
    hurdle: float | None = None
    seconds: float = math.inf
    shrink: float = 1.0

    def read_outcome(self) -> Outcome | None:
        """The outcome that a worker left on disk, if it finished."""
        try:
            return msgspec.json.decode(outcome_path(Path(self.run_dir), self.id).read_bytes(), type=Outcome)
        except (OSError, msgspec.DecodeError):
            return None


def weights_path(run_dir: Path, id: int) -> Path:  # noqa: A002
    """Where the weights of an individual are stored."""
    return run_dir / WEIGHTS / f"{id}.safetensors"


def outcome_path(run_dir: Path, id: int) -> Path:  # noqa: A002
    """Where a worker leaves an outcome until the driver has stored it in the lineage."""
    return run_dir / WEIGHTS / f"{id}.json"

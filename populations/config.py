"""Config: how a population evolves. A frozen record; the command line and ``config.json`` derive from it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import msgspec

from evo_topo.mutation import Mutations
from evo_topo.recipe import Recipe

PresetName = Literal["digits", "fashion-mnist", "cifar10", "cifar100"]
Objective = Literal["pareto", "accuracy-per-flop"]
Criterion = Literal["obd", "magnitude", "random"]

CHANGEABLE = frozenset({"generations", "minutes", "compare", "workers", "devices", "data_dir", "run_dir"})
"""Fields that may differ when a run is resumed: they do not change which children are bred (`compare`, which
are polished)."""
LEAST_AHEAD = 6
"""So that up to six workers give the same lineage."""
MOST_HEIRS = 2
"""On Fashion-MNIST, prunes of the polished begin better than survivors down to a quarter of the founder."""


class ConfigError(ValueError):
    """A configuration cannot be used; the message says which field and why."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How a population evolves.

    Raises:
        ConfigError: When a field is out of its range.
    """

    preset: PresetName
    """Whose data and founder to take where none are given, and what run folders are called; the settings
    of a preset are `PRESETS[name].config`."""

    recipe: Recipe
    """How a child trains."""

    # Optional[...] rather than `| None`: tyro checks it without loading typeguard (0.1 s of --help).
    generations: Optional[int] = 12
    """Generations to evolve; None for as many as fit into the minutes."""

    minutes: Optional[float] = None
    """Time budget of the whole run; with generations=None, as many as fit into it."""

    parents: int = 12
    """Individuals that survive each generation (mu)."""

    offspring: int = 12
    """Children per generation (lambda)."""

    ahead: Optional[int] = None
    """A child is bred when all but this many before it are judged, so no more than this and one are developed
    at once; 0 waits for whole generations. None for the number of devices, but at least 6."""

    doubling: Optional[int] = None
    """Generations after which children train twice as long, up to the founder's examples; None for never."""

    example_exponent: float = 0.5
    """Children that cost less than the founder train longer: by (founder's FLOPs / own) to this power."""

    inherited_rate: float = 0.3
    """Largest learning rate of a child that is bred, as a share of the recipe's."""

    founder_examples: int = 10_000
    """Training examples that the founder sees first; fewer where that is over a fifth of a timed run."""

    polish_examples: int = 20_000
    """Training examples of each survivor after the last generation, 0 for none; timed runs ask the clock."""

    polished: int = 6
    """Most survivors that are trained on after the last generation: those that span the front."""

    polish_share: float = 0.5
    """Share of a timed run that is left for them; they train for as long as it allows."""

    heirs: Optional[int] = None
    """For how many of them, from the second costliest down, a prune of the one polished before competes. None
    for 2, and with many devices for fewer in a timed run, since they wait for each other."""

    distill: float = 0.0
    """Share of their loss that is the distance from a teacher's answers, 0 for none: the founder for
    comparison teaches or, without one, the costliest of them; it trains first."""

    compare: bool = True
    """Train the founder in one go for comparison, as long as the front; else the front has the time."""

    seed: int = 0
    """Seed of everything; on CPU the same seed gives the same lineage."""

    objective: Objective = "pareto"
    """Select by NSGA-II on accuracy and FLOPs, or by the ratio of the two."""

    accuracy_floor: float = 0.5
    """Individuals with less validation accuracy than this lose against all others."""

    criterion: Criterion = "obd"
    """What prices the mutations; magnitude and random are controls."""

    mutations: Mutations = "all"
    """Which edits mutations may be; prunes alone and growths alone are controls."""

    inherit: bool = True
    """Whether a child starts from its parent's weights; from fresh ones is a control."""

    screened: int = 3
    """Prunes that are measured once they have inherited, for each one that is trained; 1 for none but it."""

    growth: float = 0.1
    """Probability that a mutation grows the network rather than pruning it."""

    outward: float = 0.33
    """Share of the children by which the cheapest survivor draws the front out, until it is near the accuracy
    floor, beside those that it has as one parent among others. Unless this is 0, the cheapest of the polished
    is then pruned on, as far as the floor."""

    upward: float = 0.15
    """Share of the children by which the costliest survivor, if not smaller than the founder, is enlarged in
    large steps, as long as the ceiling leaves room and twice the FLOPs has made errors fewer."""

    ceiling: Optional[float] = 1.0
    """Most FLOPs of a child, as a multiple of the founder's; None for no limit."""

    train_on: float = 0.15
    """Probability that a child is not edited at all and only trains on."""

    probe_examples: int = 2000
    """Training examples on which edits are priced and survivors refit, and others on which mutations are
    measured; of each, at most half of the training split."""

    workers: Optional[int] = None
    """Children developed at once; None for one per device listed, or one per `threads` CPU cores."""

    threads: int = 1
    """CPU threads per child; part of what makes a lineage reproducible."""

    devices: str = "auto"
    """`auto` (all GPUs, each as often as it has room for, or the CPU), `cpu`, or a list such as
    `cuda:0,cuda:0,cuda:1`, each entry of which is room for one child."""

    data_dir: Optional[Path] = None
    """Folder to look for the data in first."""

    run_dir: Optional[Path] = None
    """Folder for all that the run leaves; None for the next free one under runs/."""

    def __post_init__(self) -> None:
        if self.generations is None and self.minutes is None:
            raise ConfigError("expected generations or minutes, got neither")
        counts = ("parents", "offspring", "founder_examples", "polished", "screened", "probe_examples")
        for name in (*counts, "threads"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("polish_examples", "heirs", "ahead"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 0, "at least 0")
        for name in ("generations", "workers", "doubling"):
            value = getattr(self, name)
            self._check(name, value is None or value >= 1, "at least 1")
        self._check("inherited_rate", 0 < self.inherited_rate <= 1, "above 0, at most 1")
        self._check("seed", abs(self.seed) < 2**63, "a whole number of 64 bits")
        self._check("ceiling", self.ceiling is None or self.ceiling > 0, "a positive number")
        self._check("minutes", self.minutes is None or 0 < self.minutes < 1e6, "a positive number")
        shares = ("accuracy_floor", "growth", "outward", "upward", "train_on", "polish_share", "distill")
        for name in (*shares, "example_exponent"):
            self._check(name, 0 <= getattr(self, name) <= 1, "from 0 to 1")
        self._check("distill", not self.distill or self.polish_examples > 0, "0 where nobody is polished")

    def _check(self, name: str, fine: bool, expected: str) -> None:
        if not fine:
            raise ConfigError(f"{name}: expected {expected}, got {getattr(self, name)}")

    def for_slots(self, slots: int) -> Config:
        """The same, with numbers for `ahead` and `heirs`.

        Args:
            slots: Children that can be developed at once.
        """
        ahead = max(LEAST_AHEAD, slots) if self.ahead is None else self.ahead
        fitting = MOST_HEIRS if self.minutes is None else math.floor(self.polished / slots - 1.5)
        heirs = max(0, min(MOST_HEIRS, fitting)) if self.heirs is None else self.heirs
        return dataclasses.replace(self, ahead=ahead, heirs=heirs)

    def to_json(self) -> str:
        """The configuration as JSON text."""
        text = msgspec.json.encode(dataclasses.asdict(self), enc_hook=str)
        return msgspec.json.format(text).decode() + "\n"

    @staticmethod
    def from_json(text: str | bytes) -> Config:
        """Reads a configuration from JSON text.

        Raises:
            ConfigError: When the text is no valid configuration.
        """
        try:
            found = msgspec.json.decode(text, type=dict[str, Any])
            _check_names("", found, Config)
            _check_names("recipe.", found["recipe"], Recipe)
            return msgspec.json.decode(text, type=Config, dec_hook=_decode_path)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ConfigError(f"not a configuration: {error}") from None

    def check_resumable(self, stored: Config) -> None:
        """Checks that a run begun with `stored` can go on with this configuration.

        Raises:
            ConfigError: When a field differs that decides which children are bred.
        """
        for field in dataclasses.fields(self):
            now, then = getattr(self, field.name), getattr(stored, field.name)
            if field.name not in CHANGEABLE and now != then:
                raise ConfigError(
                    f"{field.name}: the run was begun with {then} and cannot go on with {now}; "
                    "leave the option out, or start a new run"
                )


def _check_names(prefix: str, found: Any, kind: type) -> None:
    """Nothing is filled in and nothing is left out: it would be another configuration.

    Raises:
        ValueError: When a field is missing or unknown.
    """
    expected = {field.name for field in dataclasses.fields(kind)}
    names = set(found) if isinstance(found, dict) else set()
    for fault, wrong in (("missing", expected - names), ("unknown", names - expected)):
        if wrong:
            listed = ", ".join(sorted(prefix + name for name in wrong))
            raise ValueError(f"{listed}: {fault}; another version of evo_topo wrote it")


def _decode_path(expected: type, value: Any) -> Any:
    if expected is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"expected {expected.__name__}, got {value!r}")

"""What the analysis scripts share: opening a run, one style, saving figures, the command line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

import matplotlib as mpl
import msgspec
import numpy as np
import tyro
from matplotlib import rc_context
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from msgspec import Meta, Struct
from numpy.typing import NDArray

from populations.individual import Individual
from populations.lineage import Lineage
from populations.records import LineageError

T = TypeVar("T")
Fraction = Annotated[float, Meta(ge=0, le=1)]

RunFolder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN", help="The run folder.")]
JsonFlag = Annotated[
    bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help="Print the numbers as JSON and draw nothing.")
]

INK, GREY, PALE, ACCENT = "#1a1a1a", "#707070", "#cfcfcf", "#d55e00"
# Okabe & Ito's colours, told apart by colour-blind readers too; yellow is too pale on white.
CATEGORIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#1a1a1a")
# From light to dark, without the yellow end: the larger the value, the more it stands out on white.
SEQUENTIAL = ListedColormap(mpl.colormaps["viridis_r"](np.linspace(0.1, 1, 256)), "sequential")

styled = rc_context(
    {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titlelocation": "left",
        "axes.labelsize": 10,
        "xtick.labelsize": 9,
        "ytick.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#ececec",
        "grid.linewidth": 0.8,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
        "text.parse_math": False,  # a dollar in a name is a dollar
        "svg.fonttype": "none",  # text stays text: searchable, and small
        "svg.hashsalt": "evo_topo",
    }
)
"""Decorates every function that draws: one style, whatever the user's settings."""


class Measured(Struct, frozen=True):
    """One network with its measurements, as ``front.json`` and ``founder.json`` hold them.

    Attributes:
        id: The individual's id.
        accuracy: Validation accuracy.
        flops: FLOPs for one example.
        test_accuracy: Test accuracy, where it was measured.
        examples: Training examples it has seen, where that is stored.
    """

    id: Annotated[int, Meta(ge=0)]
    accuracy: Fraction
    flops: Annotated[int, Meta(ge=1)]
    test_accuracy: Fraction | None = None
    examples: Annotated[int, Meta(ge=0)] | None = None


class Run(NamedTuple):
    """A run as read from its folder: at least one individual, the founder first.

    Attributes:
        folder: The run folder.
        individuals: Everyone, in order of birth; parents come before their children.
        populations: Ids of the survivors of each finished generation.
    """

    folder: Path
    individuals: list[Individual]
    populations: dict[int, list[int]]

    @property
    def founder(self) -> Individual:
        """The individual that all others descend from."""
        return self.individuals[0]

    @property
    def survivors(self) -> list[int]:
        """Ids of the last population; empty before the first generation is finished."""
        return self.populations[max(self.populations)] if self.populations else []


def open_run(folder: Path) -> Run:
    """Reads a run and checks that its individuals form one family.

    Raises:
        LineageError: When it is no run folder, is damaged, or holds no individual yet.
    """
    with Lineage(folder, read_only=True) as lineage:
        run = Run(folder, lineage.individuals(), lineage.populations())
    if not (folder / "config.json").is_file():
        raise LineageError(f"{folder} is no complete run folder: it holds no config.json")
    if not run.individuals:
        raise LineageError(f"{folder} holds no individual yet")
    born: set[int] = set()
    for individual in run.individuals:
        if (individual.parent is None) == bool(born) or (born and individual.parent not in born):
            raise LineageError(
                f"individual {individual.id} of the lineage is damaged: its parent is "
                f"{individual.parent}, expected {'an earlier individual' if born else 'None'}"
            )
        born.add(individual.id)
    for generation, ids in run.populations.items():
        if unknown := set(ids) - born:
            raise LineageError(f"generation {generation} of the lineage holds unknown ids {sorted(unknown)}")
    return run


def read_json(path: Path, kind: type[T]) -> T | None:
    """A record of the run folder, or None where the run has not written it yet.

    Raises:
        LineageError: When the file is no such record.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        raise LineageError(f"{path} cannot be read: {error}") from None


def print_json(info: Struct) -> None:
    """Prints the numbers behind a figure; numbers that are not finite become null."""
    print(msgspec.json.format(msgspec.json.encode(info), indent=2).decode())


@styled
def save_figure(figure: Figure, run_dir: Path, name: str) -> None:
    """Writes a figure as PNG and SVG into ``RUN/figures/`` and prints where; equal input, equal files."""
    folder = run_dir / "figures"
    folder.mkdir(exist_ok=True)
    dpi = min(150.0, 30_000 / max(figure.get_size_inches()))  # renderers stop at 2^16 pixels
    for suffix, metadata in (("png", {}), ("svg", {"Date": None})):
        path = folder / f"{name}.{suffix}"
        figure.savefig(path, dpi=dpi, metadata=metadata)
        print(f"wrote {path}")


def run_command(
    function: Callable[..., None],
    prog: str,
    args: Sequence[str] | None = None,
    mendable: tuple[type[Exception], ...] = (LineageError, OSError),
) -> None:
    """Runs a typed function as a command line; what a user can mend ends in one message and exit code 2.

    Args:
        function: Its parameters are the options.
        prog: Name of the command.
        args: Arguments; None for those of the process.
        mendable: Errors whose message tells the user enough.
    """
    try:
        tyro.cli(function, prog=prog, args=args)
    except mendable as error:
        print(f"{prog}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def as_array(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Numbers as an array, with NaN where there is none."""
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def less(loss: float | None, parent_loss: float | None) -> float | None:
    """What a loss is above the parent's; None where either was not measured."""
    return None if loss is None or parent_loss is None else loss - parent_loss


def format_count(count: float) -> str:
    """Three digits and a unit: 1.23 M."""
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """A fraction in per cent, or a dash where there is none."""
    return "-" if fraction is None else f"{100 * fraction:.{digits}f} %"


def describe_mutation(individual: Individual) -> str:
    """What made the individual out of its parent, in a few words."""
    if individual.parent is None:
        return "founder"
    if individual.edit is None:
        return "train on"
    return ("enlarge: " if individual.is_enlarged else "") + individual.edit.describe()

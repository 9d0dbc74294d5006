"""Evolves a population of neural networks: `python run.py --help` shows all there is to choose."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import tyro

from populations.config import Config, ConfigError
from populations.presets import PRESETS

if TYPE_CHECKING:
    from torch import Tensor

    from evo_topo.genome import Genome


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arguments:
    """Evolves a population of neural networks that find their own structure.

    The preset may also stand first, as in: run.py fashion-mnist --minutes 15. The defaults shown are those
    of the preset.
    """

    config: tyro.conf.OmitArgPrefixes[Config]
    """How to evolve."""

    resume: tyro.conf.FlagCreatePairsOff[bool] = False
    """Go on with the run in --run-dir; options that are left out stay as they were."""

    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Print configuration, data, founder and devices, and stop."""

    founder: Optional[str] = None
    """Network to start from instead of the preset's: minimal, mlp, lenet5, resnet20, resnet56, vgg19,
    mobilenet_v2, squeezenet, binarynet, torchvision:NAME, a genome.json, an exported folder with its
    weights, or RUN:knee, RUN:best or RUN:ID for a survivor of another run."""

    weights: Optional[Path] = None
    """Trained weights (.safetensors) that the founder starts from; a classifier for another number of
    classes is replaced by a new one."""

    export: Optional[Path] = None
    """Export a network of this finished run, and stop."""

    pick: Optional[str] = None
    """Which network to export: knee (of the front; None for this), best (validation accuracy), or an id."""

    to: Optional[Path] = None
    """Folder to export to; None for RUN/export/PICK."""


def main(argv: list[str]) -> int:
    """Runs the command line; returns the exit code."""
    try:
        arguments = parse(argv)
        if arguments.export is not None and arguments.dry_run:
            raise ConfigError("dry_run: it is of runs; leave it out to export")
        if arguments.export is not None:
            print_export(arguments.export, arguments.pick or "knee", arguments.to)
        elif (arguments.pick, arguments.to) != (None, None):
            raise ConfigError("export: --pick and --to say what to export; name the run with --export RUN")
        elif arguments.dry_run:
            print_plan(arguments)
        else:
            run(arguments)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except (ValueError, RuntimeError, OSError) as error:
        if not _is_expected(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(argv: list[str]) -> Arguments:
    """Arguments of the command line; defaults are those of the preset, or of the run to resume.

    Raises:
        ConfigError: When an option is out of its range, or the run to resume has no configuration.
    """
    if argv and not argv[0].startswith("-"):
        argv = ["--preset", *argv]
    preset, run_dir = _value_of("--preset", argv), _value_of("--run-dir", argv)
    default = next((p.config for name, p in PRESETS.items() if name == preset), PRESETS["digits"].config)
    if "--resume" in argv and run_dir is not None:
        from populations.run import load_config

        default = load_config(Path(run_dir))
    if _value_of("--minutes", argv) and not _value_of("--generations", argv):
        default = dataclasses.replace(default, minutes=1.0, generations=None)  # time decides
    if _value_of("--generations", argv) and not _value_of("--minutes", argv):
        default = dataclasses.replace(default, minutes=None, generations=1)  # and here, the number
    return tyro.cli(
        Arguments,
        args=argv,
        default=Arguments(config=default),
        prog="run.py",
    )


def _value_of(option: str, argv: list[str]) -> str | None:
    """The value that follows an option, or stands behind its equals sign."""
    for word, following in zip(argv, [*argv[1:], None], strict=False):
        name, equals, value = word.partition("=")
        if name.replace("_", "-") == option:  # tyro takes either
            return value if equals else following
    return None


def _is_expected(error: Exception) -> bool:
    """Whether an error is one whose message says all, so that no traceback is needed."""
    from evo_topo.datasets import DatasetError
    from evo_topo.exporting import ExportError
    from populations.dispatch import EvolutionError
    from populations.records import LineageError
    from populations.weights import WeightsError

    expected = (ConfigError, DatasetError, EvolutionError, ExportError, LineageError, WeightsError, OSError)
    return isinstance(error, expected)


def run(arguments: Arguments) -> None:
    """Evolves, with progress on the screen, and prints what came of it."""
    from rich.console import Console

    from populations.screen import Screen, print_result

    console = Console()
    config = arguments.config
    console.print(f"evo_topo: evolving preset {config.preset}", highlight=False)
    from populations.run import evolve  # takes seconds: it loads torch

    founder, weights = find_start(arguments)
    screen = Screen(console)
    try:
        with screen:
            result = evolve(
                config, founder=founder, report=screen.show, resume=arguments.resume, weights=weights
            )
    except KeyboardInterrupt:
        if screen.last is not None:
            print(f"\ngo on with: python run.py --resume --run-dir {screen.last.run_dir}", file=sys.stderr)
        raise
    print_result(console, result)


def find_start(arguments: Arguments) -> tuple[Genome | None, dict[str, Tensor] | None]:
    """Genome and weights of the founder that was asked for; None for those of the preset.

    Raises:
        ConfigError: When there is no such founder, or a run is resumed, which has one already.
    """
    config, source = arguments.config, arguments.founder
    if arguments.resume and (source, arguments.weights) != (None, None):
        raise ConfigError("founder: the run to resume has one already; leave --founder and --weights out")
    if source is None:
        if arguments.weights is None:
            return None, None
        raise ConfigError("weights: name the network that they belong to with --founder")
    from evo_topo.datasets import load_dataset
    from populations.sources import find_founder

    task = load_dataset(config.preset, config.data_dir)
    return find_founder(source, task.input_shape, task.num_classes, arguments.weights, config.seed)


def print_export(run_dir: Path, pick: str, folder: Path | None) -> None:
    """Exports a network of a finished run, and prints what was written."""
    from evo_topo.exporting import BATCHES
    from populations.publishing import export_survivor

    exported = export_survivor(run_dir, pick, folder or run_dir / "export" / pick)
    for name, error in exported.errors.items():
        sizes = " and ".join(map(str, BATCHES))
        print(f"{exported.folder / name}: relative error {error:.1e} at batch sizes {sizes}")
    for name, why in exported.left_out.items():
        print(f"{name} is left out: {why}")
    print(f"{exported.folder}: read README.md")


def print_plan(arguments: Arguments) -> None:
    """Prints what a run would do: configuration, data, founder and devices."""
    config = arguments.config
    from evo_topo import count_flops, count_macs, count_params
    from evo_topo.datasets import load_dataset
    from populations.run import resumed
    from populations.slots import resolve_devices
    from populations.starting import check_free, stored_founder
    from populations.survivors import read_task, record_of

    found = find_start(arguments)[0]  # refuses one of another where a run is resumed
    if arguments.resume:
        config = resumed(config)
        assert config.run_dir is not None
        data, founder = read_task(config.run_dir), stored_founder(config.run_dir)
    else:
        if config.run_dir is not None:
            check_free(config.run_dir)
        data = record_of(load_dataset(config.preset, config.data_dir), is_own=False)
        founder = found or PRESETS[config.preset].founder()
    devices = resolve_devices(config.devices, config.workers, config.threads)
    print(config.for_slots(len(devices)).to_json())
    shape = " x ".join(map(str, data.input_shape))
    names = "train", "validation", "test"
    sizes = ", ".join(f"{size:,} {name}" for size, name in zip(data.examples, names, strict=True))
    print(f"data: {data.name}, inputs {shape}, {data.num_classes} classes, {sizes} examples")
    print(
        f"founder: {count_macs(founder):,} MACs, {count_flops(founder):,} FLOPs, "
        f"{count_params(founder):,} parameters\n{founder}"
    )
    print(f"devices: {', '.join(devices)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Any evolved network out: a folder with genome, weights, source, torch.export and ONNX, each checked."""

from __future__ import annotations

import importlib.util
import io
import runpy
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save_file
from torch import Tensor, nn
from torch.fx import GraphModule

from evo_topo.evaluation import relative_error
from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.source import write_source

GENOME, WEIGHTS, SOURCE, PT2, ONNX = "genome.json", "model.safetensors", "model.py", "model.pt2", "model.onnx"
TOLERANCE = 1e-4
"""Largest relative error that another runtime's rounding explains."""
BATCHES = (1, 5)
"""Batch sizes that every written form is checked at."""
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class ExportError(ValueError):
    """A network cannot be written, or computes something else when read back."""


class Exported(NamedTuple):
    """What was written.

    Attributes:
        folder: Where to.
        errors: For each form that was checked: its largest relative error against the network.
        left_out: For each form that is missing, why.
    """

    folder: Path
    errors: dict[str, float]
    left_out: dict[str, str]


def export(genome: Genome, model: nn.Module, folder: str | Path, onnx: bool | None = None) -> Exported:
    """Writes a trained network to a folder, and checks every written form against it.

    The folder holds ``genome.json``, ``model.safetensors``, ``model.py`` (needs nothing but torch),
    ``model.pt2`` (torch.export, any batch size) and ``model.onnx``. All read normalised inputs
    ``(batch, *genome.input_shape)`` of type float32 and give logits.

    Args:
        genome: The network as data.
        model: Its network, with weights.
        folder: Made where it does not exist.
        onnx: Whether to write ONNX, which needs the extra packages of ``pip install 'evo_topo[onnx]'``; None
            writes it where they are installed.

    Raises:
        ExportError: When ONNX is asked for without its packages, or a written form does not compute
            what the network does.
    """
    folder = Path(folder)
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if onnx and missing:
        raise ExportError(f"ONNX needs {', '.join(missing)}: pip install 'evo_topo[onnx]'")
    network = _as_plain(genome, model)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / GENOME).write_text(genome.to_json() + "\n")
        state = {name: value.contiguous() for name, value in network.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
        (folder / SOURCE).write_text(write_source(network))
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{folder} cannot be written: {error}") from None
    runners: dict[str, Callable[[Tensor], Tensor]] = {WEIGHTS: _restored(genome, folder)}
    runners[SOURCE] = runpy.run_path(str(folder / SOURCE))["load"]()
    runners[PT2] = _write_pt2(network, genome, folder / PT2)
    left_out = {}
    if onnx is False or missing:
        left_out[ONNX] = "not asked for" if onnx is False else f"{', '.join(missing)} not installed"
    else:
        runners[ONNX] = _write_onnx(network, genome, folder / ONNX)
    errors = {name: _error(name, run, network, genome) for name, run in runners.items()}
    return Exported(folder, errors, left_out)


def read_export(folder: str | Path) -> tuple[Genome, dict[str, Tensor]]:
    """Genome and weights of an exported folder.

    Raises:
        ExportError: When it is none, or damaged.
        GenomeError: When its genome is not valid.
    """
    folder = Path(folder)
    try:
        genome = Genome.from_json((folder / GENOME).read_bytes())
        return genome, load((folder / WEIGHTS).read_bytes())
    except OSError as error:
        raise ExportError(f"{folder} is no exported network: {error}") from None
    except SafetensorError as error:
        raise ExportError(f"{folder / WEIGHTS} is damaged: {error}") from None


def _as_plain(genome: Genome, model: nn.Module) -> GraphModule:
    """The network on the CPU in float32 and evaluation mode; the model stays as it is."""
    network = build(genome)
    network.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    return network.eval().requires_grad_(False)


def _restored(genome: Genome, folder: Path) -> nn.Module:
    network = build(genome, seed=1)
    network.load_state_dict(load_file(folder / WEIGHTS))
    return network.eval()


def _write_pt2(network: GraphModule, genome: Genome, path: Path) -> nn.Module:
    """Writes ``torch.export``'s form; returns it read back."""
    example = torch.zeros(2, *genome.input_shape)
    with _quiet():
        program = torch.export.export(network, (example,), dynamic_shapes=({0: _any_batch()},))
        torch.export.save(program, path)
        return torch.export.load(path).module()


def _write_onnx(network: GraphModule, genome: Genome, path: Path) -> Callable[[Tensor], Tensor]:
    """Writes ONNX; returns onnxruntime's way to run it."""
    import onnxruntime

    with _quiet():
        torch.onnx.export(
            network,
            (torch.zeros(2, *genome.input_shape),),
            path,
            input_names=["input"],
            output_names=["logits"],
            dynamic_shapes=({0: _any_batch()},),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda inputs: torch.from_numpy(session.run(None, {"input": inputs.numpy()})[0])


def _any_batch() -> Any:
    return torch.export.Dim("batch", min=1, max=2**16)


def _error(name: str, run: Callable[[Tensor], Tensor], network: GraphModule, genome: Genome) -> float:
    """Largest relative error of a written form against the network.

    Raises:
        ExportError: When it is more than rounding.
    """
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for batch in BATCHES:
        inputs = torch.randn(batch, *genome.input_shape, generator=generator)
        with torch.no_grad():
            expected, got = network(inputs), run(inputs)
        error = relative_error(got, expected)
        if not error <= TOLERANCE:
            raise ExportError(f"{name} does not compute what the network does: relative error {error:.2g}")
        worst = max(worst, error)
    return worst


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what exporters print and warn of off the screen; errors come through."""
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield

"""Where founders come from: a name, torchvision, a genome's JSON, an exported folder, another run."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import msgspec
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from evo_topo.exporting import GENOME, read_export
from evo_topo.genome import Genome, Node
from evo_topo.importing import from_module
from evo_topo.ops import Conv, Input, Linear, Output, Shape
from evo_topo.phenotype import build
from populations.classics import FOUNDERS
from populations.config import ConfigError
from populations.survivors import Survivor, find_survivor
from populations.weights import load_weights

State = dict[str, Tensor]
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
"""Heads of GoogLeNet and Inception that only their first training used."""


class Founder(NamedTuple):
    """What an evolution starts from.

    Attributes:
        genome: The network as data.
        state: Its weights by name; None for fresh ones.
    """

    genome: Genome
    state: State | None = None


def find_founder(
    source: str, input_shape: Shape, num_classes: int, weights: Path | None = None, seed: int = 0
) -> Founder:
    """Finds a founder and fits it to the inputs and classes of a task.

    Where the number of classes (or of input channels) differs, the layers that make the class scores (or read
    the input) are new; all other weights are kept.

    Args:
        source: A name in `FOUNDERS`, ``torchvision:NAME``, the path of a ``genome.json`` or of an exported
            folder, or ``RUN:ID``, ``RUN:knee`` or ``RUN:best`` for a survivor of a finished run.
        input_shape: Shape of one example.
        num_classes: Number of classes.
        weights: A safetensors file of weights for it.
        seed: Seed of new layers.

    Raises:
        ConfigError: When there is no such founder, its weights do not fit it, or it does not fit the task.
    """
    stored = None if weights is None else _read(weights)
    try:
        founder = _find(source, input_shape, num_classes, stored)
        genome, renewed = adapt(founder.genome, input_shape, num_classes)
    except ValueError as error:  # genomes, folders and modules that cannot be used are such, too
        raise ConfigError(f"founder {source!r}: {error}") from None
    state = founder.state
    if stored is not None and state is None:
        state = stored
    return Founder(genome, None if state is None else _fitted(genome, state, renewed, seed, source))


def _find(source: str, input_shape: Shape, num_classes: int, stored: State | None) -> Founder:
    if source in FOUNDERS:
        genome = FOUNDERS[source](input_shape, num_classes)
        made = (stored or {}).get(f"{_scorer(genome).name}.weight")  # it may know other classes
        return Founder(genome if made is None else FOUNDERS[source](input_shape, _rows(made)))
    room, _, name = source.rpartition(":")
    if room == "torchvision":
        return _from_torchvision(name, input_shape, stored)
    path = Path(source)
    if path.is_dir() and (path / GENOME).is_file():
        genome, state = read_export(path)
        return Founder(genome, state if stored is None else None)
    if path.is_file():
        return Founder(Genome.from_json(path.read_bytes()))
    if room and Path(room).is_dir():
        survivor = find_survivor(Path(room), name)
        return Founder(survivor.genome, _state_of(survivor) if stored is None else None)
    raise ConfigError(
        f"expected one of {', '.join(FOUNDERS)}, torchvision:NAME, "
        "a genome.json, an exported folder, or RUN:ID"
    )


def _from_torchvision(name: str, input_shape: Shape, stored: State | None) -> Founder:
    """A network of torchvision, for images of the task's extents, with torchvision's or fresh weights."""
    from torchvision.models import get_model

    if len(input_shape) != 3:
        raise ConfigError(f"torchvision's networks read images, the task has inputs of shape {input_shape}")
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    try:
        net = get_model(name, weights=None, **options)
    except ValueError as error:
        raise ConfigError(f"{error}; `torchvision.models.list_models()` names those there are") from None
    own = net.state_dict()
    if stored is not None:
        stored = {key: value for key, value in stored.items() if not key.startswith(_AUXILIARY)}
    is_torchvisions = stored is not None and stored.keys() == own.keys()
    if stored is not None and is_torchvisions:
        others = [_rows(value) for key, value in stored.items() if value.shape != own[key].shape]
        if others:  # it was made for another number of classes
            net = get_model(name, weights=None, num_classes=others[-1], **options)
        try:
            net.load_state_dict(stored)
        except RuntimeError as error:
            raise ConfigError(f"the weights do not fit it: {error}") from None
    genome, model = from_module(net, (3, *input_shape[1:]))
    if stored is not None and not is_torchvisions and stored.keys().isdisjoint(model.state_dict()):
        lacking, surplus = sorted(own.keys() - stored.keys()), sorted(stored.keys() - own.keys())
        raise ConfigError(
            f"the weights are no state of it: they lack {', '.join(lacking[:3]) or 'nothing'}, "
            f"and hold besides {', '.join(surplus[:3]) or 'nothing'}"
        )
    return Founder(genome, dict(model.state_dict()) if is_torchvisions else None)


def adapt(genome: Genome, input_shape: Shape, num_classes: int) -> tuple[Genome, frozenset[str]]:
    """Fits a genome to other input channels and another number of classes.

    Returns:
        The genome, and the nodes whose weights are new: those that make the class scores, where their
        number changes, and those that read the input, where its channels change.

    Raises:
        ValueError: When the class scores are no layer's own, or the extents differ.
    """
    old = genome.input_shape
    if old[1:] != input_shape[1:]:
        raise ValueError(f"it reads inputs of shape {old}, the task has {input_shape}")
    last = _scorer(genome)
    renewed: set[str] = set()
    nodes = []
    for node in genome.nodes:
        op = node.op
        if isinstance(op, Input) and old != input_shape:
            op = Input(input_shape)
            renewed.update(genome.readers[node.name])
        elif node is last and num_classes != genome.num_classes:
            renewed.add(node.name)
            size = {"out_features": num_classes} if isinstance(op, Linear) else {"out_channels": num_classes}
            op = msgspec.structs.replace(op, **size)
        nodes.append(Node(node.name, op, node.inputs))
    return Genome(tuple(nodes)), frozenset(renewed)


def _scorer(genome: Genome) -> Node:
    """The layer that makes the class scores."""
    node = next(node for node in genome.nodes if isinstance(node.op, Output))
    while not isinstance(node.op, Conv | Linear):
        if len(node.inputs) != 1:
            raise ValueError(f"its class scores come from node {node.name!r}, which is no layer")
        node = genome.by_name[node.inputs[0]]
    return node


def _fitted(genome: Genome, state: State, renewed: frozenset[str], seed: int, source: str) -> State:
    """The state with fresh weights for renewed layers, checked entry by entry."""
    fresh = dict(build(genome, seed).state_dict())
    for name, value in fresh.items():
        if name.rpartition(".")[0] in renewed:
            continue
        if name not in state or state[name].shape != value.shape:
            found = "none" if name not in state else str(tuple(state[name].shape))
            raise ConfigError(
                f"weights of founder {source!r}: expected {name} of shape {tuple(value.shape)}, got {found}"
            )
        fresh[name] = state[name].detach().to(value.dtype)
    unknown = sorted(state.keys() - fresh.keys())
    if unknown:
        raise ConfigError(f"weights of founder {source!r}: it has no {', '.join(unknown[:5])}")
    return {name: value.contiguous() for name, value in fresh.items()}


def _rows(value: Tensor) -> int:
    """Outputs that a weight makes; 0 for a number, which is no weight."""
    return value.shape[0] if value.ndim else 0


def _state_of(survivor: Survivor) -> State:
    """Its weights, if they are the recorded ones."""
    model = build(survivor.genome)
    load_weights(model, survivor.weights, survivor.individual.outcome.weights_sha256)
    return dict(model.state_dict())


def _read(path: Path) -> State:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"weights {path} cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise ConfigError(
            f"weights {path}: expected a sound safetensors file (safetensors.torch.save_file): {error}"
        ) from None

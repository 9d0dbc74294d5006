"""Any torch network in: a module becomes a genome and a phenotype with the same function and weights.

`tracing` records the calls that a module makes, `calls` has the counterpart of each in the vocabulary,
`lowering` adds the nodes, and `values` sorts out what only moves elements.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.fx import GraphModule

from evo_topo.evaluation import relative_error
from evo_topo.genome import Genome
from evo_topo.hooks import in_mode
from evo_topo.importing.calls import lower_call
from evo_topo.importing.lowering import Lowering
from evo_topo.importing.tracing import UnsupportedModuleError, record
from evo_topo.phenotype import build

__all__ = ["UnsupportedModuleError", "from_module"]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest relative error that rounding explains."""


def from_module(net: nn.Module, input_shape: Sequence[int]) -> tuple[Genome, GraphModule]:
    """Turns a torch module into a genome, and a phenotype that computes the same with the same weights.

    The module is recorded in evaluation mode, without running it, and stays as it is. Parameters that
    evaluation does not use (auxiliary heads) are left out, and so are regularisers other than dropout of
    single elements (stochastic depth, dropout of channels). At the end both networks are compared on random
    inputs.

    Args:
        net: Takes one tensor (batch, *input_shape) and returns logits (batch, classes).
        input_shape: Shape of one example: ``(channels, height, width)``, ``(channels, length)`` or
            ``(features,)``.

    Returns:
        The genome, and its network with copies of the module's weights, on the module's device, in its
        type and mode.

    Raises:
        UnsupportedModuleError: When the module computes what no genome expresses; names the module, the
            call and the source line.
    """
    reference = next(net.parameters(), None)
    if reference is None or reference.dtype not in _TOLERANCE:
        found = "none" if reference is None else str(reference.dtype)
        raise UnsupportedModuleError(f"expected a module with float32 or float64 parameters, got {found}")
    with in_mode(net, training=False):
        graph = record(net, tuple(input_shape), reference.dtype)
        lowering = Lowering(net, lower_call, reference.dtype)
        genome = lowering.lower(graph)
        model = _with_state(genome, lowering.state)
        _check_equal(net, model, genome, reference)
    return genome, model.train(net.training)


def _with_state(genome: Genome, state: dict[str, torch.Tensor]) -> GraphModule:
    """The network of a genome with copies of stored tensors."""
    with torch.device("meta"):  # no time goes into weights that are replaced
        model = build(genome)
    device = next(iter(state.values())).device
    counters = {
        name: torch.zeros((), dtype=value.dtype, device=device)
        for name, value in model.state_dict().items()
        if name.endswith("num_batches_tracked")
    }
    copies = {name: tensor.detach().clone() for name, tensor in state.items()}
    model.load_state_dict(counters | copies, assign=True)
    return model.to(device)


@torch.no_grad()
def _check_equal(net: nn.Module, model: nn.Module, genome: Genome, reference: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, *genome.input_shape, generator=generator, dtype=reference.dtype)
    with in_mode(model, training=False):
        expected, got = (module(inputs.to(reference.device)) for module in (net, model))
    error = relative_error(got, expected)
    if not error <= _TOLERANCE[reference.dtype]:
        raise UnsupportedModuleError(
            f"what was recorded of {type(net).__name__} does not compute what the module does (relative "
            f"error {error:.2g}); it may draw random numbers, overflow, or keep state between calls"
        )

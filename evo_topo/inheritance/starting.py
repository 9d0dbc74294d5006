"""How nodes start that the parent lacks."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from evo_topo.edits import AnyEdit, Factorise, Fuse, MergeLayers, SplitBranch, SplitLayer
from evo_topo.edits.merge_layers import link_between
from evo_topo.genome import Genome, Node
from evo_topo.inheritance.factors import expand_factors, fire_factors, reduce_factors, separable_factors
from evo_topo.inheritance.fusing import fused_state
from evo_topo.inheritance.merging import merged_state
from evo_topo.ops import Concat, Conv, Linear, Norm


def start_new_nodes(
    model: nn.Module, genome: Genome, edit: AnyEdit, child_model: nn.Module, child: Genome
) -> None:
    """Sets the parameters of the child's new nodes, in place; call it without gradients.

    Args:
        model: The parent's network.
        genome: The parent's genome.
        edit: The mutation.
        child_model: The child's network, fresh where it is new.
        child: The child's genome.
    """
    new = [node for node in child.nodes if node.name not in genome.by_name]
    match edit:
        case SplitLayer():
            for node in new:
                _set_identity(child_model, node)
        case SplitBranch():
            _set_zero(child_model.get_submodule(new[-2].name))  # the last is the sum
        case Factorise():
            factors = [child_model.get_submodule(n.name) for n in new if not isinstance(n.op, Concat)]
            _set_factors(model.get_submodule(edit.layer), edit, factors)
        case Fuse():
            (fused,) = (child_model.get_submodule(node.name) for node in new)
            first, second = (model.get_submodule(name) for name in (edit.first, edit.second))
            assert isinstance(fused.weight, Tensor)
            _set(fused, *fused_state(first, second, edit.is_parallel(genome), fused.weight))
        case MergeLayers():
            link = link_between(genome, edit.first, edit.second)
            norms = [model.get_submodule(node.name) for node in link.between if isinstance(node.op, Norm)]
            first, second = (model.get_submodule(name) for name in (edit.first, edit.second))
            merged = child_model.get_submodule(new[-1].name)
            (read,) = genome.input_shapes(link.first)
            assert isinstance(merged.weight, Tensor)
            _set(merged, *merged_state(first, norms, second, read[1:], merged.weight))


def _set_factors(layer: nn.Module, edit: Factorise, factors: list[nn.Module]) -> None:
    """Sets the nearest factors of a layer, in the order of its `Factorise.factors`."""
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    assert bias is None or isinstance(bias, Tensor)
    weights: Sequence[Tensor]
    biases = [*[None] * (len(factors) - 1), bias]
    match edit.form:
        case "reduce":
            weights = reduce_factors(weight, edit.rank)
        case "expand":
            weights = expand_factors(weight, edit.rank)
        case "separable":
            weights = separable_factors(weight)
        case "fire":
            half = len(weight) // 2
            weights = fire_factors(weight, edit.rank, half)
            biases = [None, None, None] if bias is None else [None, bias[:half], bias[half:]]
    for factor, values, shift in zip(factors, weights, biases, strict=True):
        _set(factor, values, shift)


def _set(module: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    assert isinstance(module.weight, Tensor)
    module.weight.copy_(weight)
    if isinstance(module.bias, Tensor):
        assert bias is not None
        module.bias.copy_(bias)


def _set_zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def _set_identity(model: nn.Module, node: Node) -> None:
    """Makes a new layer compute its input (Net2DeeperNet, Chen et al. 2016, sec. 2.2)."""
    if not isinstance(node.op, Conv | Linear | Norm):
        return
    module = model.get_submodule(node.name)
    assert isinstance(module.weight, Tensor)
    if isinstance(node.op, Norm):  # running mean 0 and variance 1 are torch's defaults
        module.weight.fill_((1 + node.op.eps) ** 0.5)
    elif isinstance(node.op, Linear):
        nn.init.eye_(module.weight)
    else:
        nn.init.dirac_(module.weight)
    if not isinstance(node.op, Norm) and module.bias is not None:
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]

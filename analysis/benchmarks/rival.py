"""Global pruning by Torch-Pruning (Fang et al. 2023), given what each of its criteria asks for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from evo_topo.hooks import in_mode

Criterion = Literal["magnitude", "Taylor", "Hessian"]
_TRIALS = 12  # halvings of the pruning ratio: finer than one unit in a few hundred


def torch_pruning(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    macs: int,
    criterion: Criterion,
    normalizer: Literal["mean"] | None,
) -> nn.Module:
    """The largest network within `macs` that Torch-Pruning gives at any pruning ratio.

    Args:
        model: Trained network whose last Linear makes the class scores; it stays as it is.
        inputs: Normalised inputs (examples, ...) that the criterion looks at.
        targets: Class of each example (examples,).
        macs: Most MACs of the result.
        criterion: Which of its group criteria.
        normalizer: Whether importances are divided by their mean in the group, its default.

    Raises:
        ImportError: When Torch-Pruning is not installed.
    """
    import torch_pruning as tp

    gradients = _GRADIENTS[criterion](model, inputs, targets)
    importance = {
        "magnitude": tp.importance.GroupMagnitudeImportance,
        "Taylor": tp.importance.GroupTaylorImportance,
        "Hessian": tp.importance.GroupHessianImportance,
    }[criterion](normalizer=normalizer)

    def pruned(ratio: float) -> nn.Module:
        child = copy.deepcopy(model).eval()
        for name, parameter in child.named_parameters():
            parameter.grad = gradients[name].clone() if gradients else None
        classifier = [module for module in child.modules() if isinstance(module, nn.Linear)][-1]
        settings = {"global_pruning": True, "pruning_ratio": ratio, "ignored_layers": [classifier]}
        tp.pruner.BasePruner(child, inputs[:1], importance, **settings).step()
        return child

    low, high = 0.0, 1.0
    best = pruned(high)
    for _ in range(_TRIALS):
        middle = (low + high) / 2
        child = pruned(middle)
        if module_macs(child, inputs) <= macs:
            best, high = child, middle
        else:
            low = middle
    return best


def module_macs(model: nn.Module, inputs: Tensor) -> int:
    """MACs of any module for one example, by torch's own counter (which counts FLOPs)."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs[:1])
    return int(counter.get_total_flops() // 2)


def mean_gradients(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Gradient of the mean loss with respect to every parameter."""
    model = copy.deepcopy(model).eval()
    model.zero_grad()
    for batch, labels in zip(torch.split(inputs, 250), torch.split(targets, 250), strict=True):
        torch.autograd.backward(F.cross_entropy(model(batch), labels, reduction="sum"))
    return {name: p.grad / len(inputs) for name, p in model.named_parameters() if p.grad is not None}


def mean_squared_gradients(model: nn.Module, inputs: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Mean over all examples of the squared gradient of each one's loss: what its Hessian criterion takes.

    Its own accumulator overwrites the count and the sum at every call, so that the last example alone
    would count (version 1.6); these are the values that its documentation asks for.
    """
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(values: dict[str, Tensor], example: Tensor, target: Tensor) -> Tensor:
        logits = functional_call(model, (values, buffers), (example[None],))
        return F.cross_entropy(logits, target[None])

    total = {name: torch.zeros_like(value) for name, value in parameters.items()}
    with in_mode(model, training=False):
        for batch, labels in zip(torch.split(inputs, 50), torch.split(targets, 50), strict=True):
            for name, each in vmap(grad(loss), (None, 0, 0))(parameters, batch, labels).items():
                total[name] += each.square().sum(0)
    return {name: value / len(inputs) for name, value in total.items()}


_GRADIENTS: dict[Criterion, Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]] = {
    "magnitude": lambda *_: {},
    "Taylor": mean_gradients,
    "Hessian": mean_squared_gradients,
}

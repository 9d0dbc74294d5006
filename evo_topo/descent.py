"""SGD with Nesterov momentum, by torch's functional form.

torch's optimiser classes load its compiler, which takes two seconds of every new process, and spend a tenth
to a fourth of a small network's step themselves.
"""

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from evo_topo.recipe import Recipe


class Descent:
    """Moves the weights of a network along the gradients that they hold.

    Kernels and matrices decay, biases and BatchNorm parameters do not. Nor does a weight that is alone in its
    filter, as where a kernel of one pixel reads one channel. BatchNorm undoes its size, so it has next to no
    gradient, and decay would take it to nothing: to where BatchNorm's epsilon counts, and steps are up to 316
    times as long.

    Args:
        model: The network.
        recipe: How to train.
        device: Where the network is.

    Attributes:
        parameters: All that are learned.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, device: torch.device) -> None:
        learned = [p for p in model.parameters() if p.requires_grad]
        decayed = [p for p in learned if p.ndim > 1 and p[0].numel() > 1]
        others = [p for p in learned if p.ndim <= 1 or p[0].numel() == 1]
        self.parameters = decayed + others
        self._momentum = recipe.momentum
        self._rate: float | Tensor = recipe.rate
        if device.type == "cuda":  # where a number would be part of what is captured
            self._rate = torch.tensor(recipe.rate, device=device)
        parts = (decayed, recipe.decay(weights_of(model))), (others, 0.0)
        self._parts = [(kept, [torch.zeros_like(p) for p in kept], decay) for kept, decay in parts]

    def set_rate(self, rate: float) -> None:
        """Sets the learning rate of the next step."""
        if isinstance(self._rate, Tensor):
            self._rate.fill_(rate)
        else:
            self._rate = rate

    @torch.no_grad()
    def step(self) -> None:
        """Moves every parameter that has a gradient."""
        for parameters, momenta, decay in self._parts:
            moved = [(p, p.grad, m) for p, m in zip(parameters, momenta, strict=True) if p.grad is not None]
            if not moved:
                continue
            kept, gradients, buffers = map(list, zip(*moved, strict=True))
            sgd(
                kept,
                gradients,
                buffers,
                fused=True,
                weight_decay=decay,
                momentum=self._momentum,
                lr=self._rate,
                dampening=0.0,
                nesterov=self._momentum > 0,  # torch refuses the combination with zero
                maximize=False,
            )

    def forget_gradients(self) -> None:
        """Lets the next way back allocate gradients anew."""
        for parameter in self.parameters:
            parameter.grad = None


def weights_of(model: nn.Module) -> int:
    """Number of trained weights in matrices and kernels."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad and p.ndim > 1)

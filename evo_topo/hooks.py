"""Looking into a network while it runs, and the mode that it runs in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from evo_topo.binary import BinaryConv1d, BinaryConv2d, BinaryLinear


def hook_reads(model: nn.Module, layer: str, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
    """Shows a function what a Conv or Linear multiplies with its weights; what it returns takes the place.

    A real layer multiplies its inputs, a binary one their signs.

    Args:
        model: A network from `build`.
        layer: Name of the node.
        hook: Gets a tensor (batch, channels, ...), and may return another of its shape.
    """
    module = model.get_submodule(layer)
    if isinstance(module, BinaryLinear | BinaryConv1d | BinaryConv2d):
        return module.sign.register_forward_hook(lambda _, args, signs: hook(signs))
    return module.register_forward_pre_hook(lambda _, args: hook(args[0]))


def hook_value(
    model: nn.Module, name: str, hook: Callable[[tuple[Tensor, ...], Tensor], Tensor]
) -> RemovableHandle:
    """Shows a function what a module reads and makes; what it returns takes the place, and stays as it is.

    Args:
        model: A network from `build`.
        name: Name of the node.
        hook: Gets the arguments and the value of the module (batch, channels, ...), and returns a tensor of
            the value's shape. The rest of the network reads a copy, which it may write over.
    """
    return model.get_submodule(name).register_forward_hook(lambda _, args, value: hook(args, value).clone())


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Sets the training flag of every module within the context, and gives each its own back after."""
    flags = {module: module.training for module in model.modules()}
    model.train(training)
    try:
        yield
    finally:
        for module, flag in flags.items():
            module.training = flag

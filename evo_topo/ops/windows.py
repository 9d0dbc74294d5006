"""Sliding windows: their extents, their defaults and how they are told."""

from __future__ import annotations

from msgspec.structs import force_setattr

from evo_topo.ops.base import Op, OpError, Shape


def slide(
    size: Shape, kernel: Shape, stride: Shape, padding: Shape, dilation: Shape, ceil: bool = False
) -> Shape:
    """Output extents of a sliding window (the formulas of torch.nn.Conv2d and MaxPool2d)."""
    if min((*kernel, *stride, *dilation)) < 1:
        raise OpError(
            f"expected extents, strides and dilations from 1 on, got {kernel}, {stride}, {dilation}"
        )
    out = []
    for i, n in enumerate(size):
        s, p = stride[i], padding[i]
        room = n + 2 * p - dilation[i] * (kernel[i] - 1) - 1
        if room < 0:
            raise OpError(f"window {kernel} does not fit into extents {size} padded by {padding}")
        steps = -(-room // s) if ceil else room // s
        if ceil and steps * s >= n + p:  # the last window must begin inside or in the left padding
            steps -= 1
        out.append(steps + 1)
    return tuple(out)


def fill_window_defaults(op: Op, kernel: Shape, names: dict[str, int | Shape]) -> None:
    """Gives each omitted window setting its value per dimension, so equal windows are equal data."""
    dims = len(kernel)
    if dims not in (1, 2):
        raise OpError(f"kernel has 1 or 2 extents, got {kernel}")
    for name, default in names.items():
        value = getattr(op, name)
        if len(value) == dims:
            continue
        if not value:
            filled = (default,) * dims if isinstance(default, int) else default
            force_setattr(op, name, filled)
        else:
            raise OpError(f"{name} {value} does not match the {dims} extents of kernel {kernel}")


def window_text(kernel: Shape, stride: Shape) -> str:
    """A window in a few letters, with its stride where it has one."""
    text = "x".join(map(str, kernel))
    if any(s != 1 for s in stride):
        text += " /" + "x".join(map(str, dict.fromkeys(stride)))
    return text

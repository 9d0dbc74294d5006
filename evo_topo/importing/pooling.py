"""Pooling and padding, as torch calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from evo_topo.importing.arguments import Call, for_each, number_of
from evo_topo.importing.lowering import Lowering, NotExpressible
from evo_topo.importing.values import Value, viewed
from evo_topo.ops import AdaptivePool, GlobalPool, Pad, Pool


def _pool(
    net: Lowering, mode: Literal["max", "avg"], input: Any, kernel: Any, stride: Any, **rest: Any
) -> Value:
    dims = len(input.size) - 1
    kernel = for_each(kernel, dims)
    stride = kernel if stride is None or stride == [] else for_each(stride, dims)
    rest["padding"] = for_each(rest["padding"], dims)
    return net.apply(Pool(kernel, mode, stride, **rest), input)


def _max_pool(
    net: Lowering,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    if return_indices or set(for_each(dilation, len(input.size) - 1)) != {1}:
        raise NotExpressible(f"max pooling with dilation {dilation} or with indices")
    return _pool(net, "max", input, kernel_size, stride, padding=padding, ceil_mode=ceil_mode)


def _avg_pool(
    net: Lowering,
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Value:
    if divisor_override is not None:
        raise NotExpressible(f"average pooling with divisor {divisor_override}")
    rest = {"padding": padding, "ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    return _pool(net, "avg", input, kernel_size, stride, **rest)


def _adaptive_pool(net: Lowering, mode: Literal["max", "avg"], input: Value, output_size: Any) -> Value:
    extents = input.size[1:]
    sizes = output_size if isinstance(output_size, Sequence) else (output_size,) * len(extents)
    size = tuple([n if s is None else int(s) for s, n in zip(sizes, extents, strict=True)])
    if size == extents:  # every window holds one element
        return input
    if max(size) == 1:
        return net.apply(GlobalPool(mode), input)
    if any(n % s for s, n in zip(size, extents, strict=True)):
        return net.apply(AdaptivePool(size, mode), input)
    return net.apply(Pool(tuple([n // s for s, n in zip(size, extents, strict=True)]), mode), input)


def _adaptive_avg_pool(net: Lowering, input: Any, output_size: Any) -> Value:
    return _adaptive_pool(net, "avg", input, output_size)


def _adaptive_max_pool(net: Lowering, input: Any, output_size: Any, return_indices: bool = False) -> Value:
    if return_indices:
        raise NotExpressible("pooling that returns indices")
    return _adaptive_pool(net, "max", input, output_size)


def _mean(net: Lowering, input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Value:
    return _reduce(net, "avg", input, dim, keepdim)


def _amax(net: Lowering, input: Any, dim: Any = None, keepdim: bool = False) -> Value:
    return _reduce(net, "max", input, dim, keepdim)


def _reduce(net: Lowering, mode: Literal["max", "avg"], input: Any, dim: Any, keepdim: bool) -> Value:
    """Global pooling written as a mean or maximum over all extents."""
    rank = 1 + len(input.size)
    dims = sorted({d % rank for d in (dim if isinstance(dim, Sequence) else (dim,)) if d is not None})
    if rank < 3 or dims != list(range(2, rank)):
        raise NotExpressible(
            f"a reduction of dimensions {dim} of shape (batch, {input.size}); expected all extents"
        )
    is_flattened = input.is_reshaped and input.size[0] == input.shape[0]
    pooled = net.apply(GlobalPool(mode), Value(input.name, input.shape) if is_flattened else input)
    return viewed(pooled.name, pooled.shape, (pooled.shape[0], *[1] * (rank - 2 if keepdim else 0)))


def _pad(net: Lowering, input: Value, pad: Any, mode: str = "constant", value: Any = None) -> Value:
    fill = number_of(value) or 0.0
    if mode != "constant" or fill not in (0.0, -math.inf):
        raise NotExpressible(f"padding by {mode} {fill}; only zeros and minus infinity are known")
    pairs = list(zip(pad[::2], pad[1::2], strict=True))  # the last extent comes first
    dims = len(input.size) - 1
    if any(map(any, pairs[dims:])):
        raise NotExpressible(f"padding {tuple(pad)} adds channels or examples")
    pairs = [*pairs[:dims], *[(0, 0)] * (dims - len(pairs))][::-1]
    if not any(map(any, pairs)):
        return input
    before, after = zip(*pairs, strict=True)
    return net.apply(Pad(before, after, "lowest" if fill else "zero"), input)


POOLING_CALLS: dict[str, Call] = {
    "max_pool1d": _max_pool,
    "max_pool2d": _max_pool,
    "avg_pool1d": _avg_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool1d": _adaptive_avg_pool,
    "adaptive_avg_pool2d": _adaptive_avg_pool,
    "adaptive_max_pool1d": _adaptive_max_pool,
    "adaptive_max_pool2d": _adaptive_max_pool,
    "mean": _mean,
    "amax": _amax,
    "pad": _pad,
}

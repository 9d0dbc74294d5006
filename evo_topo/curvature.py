"""The curvature of cross-entropy by the logits, as columns to take derivatives along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

Curvature = Literal["exact", "sampled"]


def hessian_root(
    log_p: Tensor, curvature: Curvature, samples: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Columns whose outer products sum (exactly, or in expectation) to the Hessian of the logits.

    The Hessian of cross-entropy is ``diag(p) - p p^T = sum_c p_c (e_c - p)(e_c - p)^T``: either all
    classes weighted by the root of their probability, or classes drawn. Drawn with that probability, a
    network that is sure of most answers would leave all to a few rare draws; here a class is drawn by the
    square length of its column, so that all columns that may be drawn have the same length, whose square is
    the trace. Over four trained networks one draw then ranks units as well as all ten classes do.
    """
    p = log_p.exp()
    if curvature == "exact":
        for label in range(p.shape[1]):
            column = -p
            column[:, label] += 1
            yield column * p[:, label : label + 1].sqrt()
        return
    others = p.square().sum(1, keepdim=True) - p.square()
    lengths = p * ((1 - p).square() + others).clamp(min=1e-12) + 1e-30  # positive also where p is 0 or 1
    chance = lengths / lengths.sum(1, keepdim=True)
    for _ in range(samples):
        drawn = torch.multinomial(chance.cpu(), 1, generator=generator).to(p.device)
        scale = (p.gather(1, drawn) / chance.gather(1, drawn) / samples).sqrt()
        yield p.scatter_add(1, drawn, -torch.ones_like(p[:, :1])) * scale


def seeded_gradients(logits: Tensor, seed: Tensor, places: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of ``<seed, logits>`` at some places of its graph, which stays."""
    # handed over as ``grad_outputs``, the first seed of a process would import sympy, for a second
    with torch.enable_grad():
        total = (seed * logits).sum()
    return torch.autograd.grad(total, places, retain_graph=True)

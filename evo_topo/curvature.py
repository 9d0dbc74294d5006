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
    classes weighted by the root of their probability, or classes drawn with it.
    """
    p = log_p.exp()
    if curvature == "exact":
        for label in range(p.shape[1]):
            column = -p
            column[:, label] += 1
            yield column * p[:, label : label + 1].sqrt()
        return
    for _ in range(samples):
        drawn = torch.multinomial(p.cpu(), 1, generator=generator).to(p.device)
        yield (p.scatter_add(1, drawn, -torch.ones_like(p[:, :1]))) * samples**-0.5


def seeded_gradients(logits: Tensor, seed: Tensor, places: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Gradients of ``<seed, logits>`` at some places of its graph, which stays."""
    # handed over as ``grad_outputs``, the first seed of a process would import sympy, for a second
    with torch.enable_grad():
        total = (seed * logits).sum()
    return torch.autograd.grad(total, places, retain_graph=True)

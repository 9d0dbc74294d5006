"""A warm start that learns on as well as a fresh one."""

from __future__ import annotations

import torch
from torch import nn

from evo_topo.genome import Genome
from evo_topo.phenotype import build


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, genome: Genome, factor: float, seed: int) -> None:
    """Moves the kernels and matrices of a trained network part of the way back to fresh ones, in place.

    Networks that are trained on from inherited weights end up worse than fresh ones trained for as long; when
    the weights first shrink and some noise is added, they do not, and what was learned still helps (Ash &
    Adams 2020, On warm-starting neural network training).

    Args:
        model: Network of `genome`, from `build` or `inherit`.
        genome: Its genome.
        factor: What the weights are multiplied by, from 0 to 1; fresh ones times the rest are added.
        seed: Decides the fresh weights.

    Raises:
        ValueError: When the factor lies outside.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor: expected a number from 0 to 1, got {factor}")
    fresh = dict(build(genome, seed).named_parameters())
    for name, weight in model.named_parameters():
        if weight.ndim > 1:  # biases and the parameters of BatchNorm stay
            weight.mul_(factor).add_(fresh[name].to(weight), alpha=1 - factor)

"""A start between inherited weights and fresh ones, for a training that is long."""

import torch
from torch import nn

from evo_topo.genome import Genome
from evo_topo.masked import Masked
from evo_topo.phenotype import build


@torch.no_grad()
def shrink_and_perturb(model: nn.Module, genome: Genome, factor: float, seed: int) -> None:
    """Moves the kernels and matrices of a trained network part of the way to fresh ones, in place.

    Weights that were trained are where long trainings end worse than fresh ones. Shrunk, and with fresh ones
    added, they keep what was learned and are as free to move (Ash & Adams 2020, On Warm-Starting Neural
    Network Training).

    Args:
        model: Network of `genome`.
        genome: Its genome.
        factor: What its weights are multiplied by, from 0 to 1; fresh ones times the rest are added. Biases
            and the parameters of BatchNorm stay, and so do masked weights, at zero.
        seed: Decides the fresh weights.

    Raises:
        ValueError: If the factor is out of its range.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f"factor: expected 0 <= factor <= 1, got {factor!r}")
    fresh = dict(build(genome, seed).named_parameters())
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            weight.mul_(factor).add_(fresh[name].to(weight), alpha=1 - factor)
    for module in model.modules():
        if isinstance(module, Masked):
            module.weight.masked_fill_(~module.mask, 0)

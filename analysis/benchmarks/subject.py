"""What benchmarks of prices and criteria look at: a trained network, and examples."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from evo_topo.genome import Genome
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.task import Task
from evo_topo.training import train


class Subject(NamedTuple):
    """A trained network, and the examples on which its parts are judged."""

    model: nn.Module
    genome: Genome
    inputs: Tensor
    targets: Tensor


def trained_network(genome: Genome, task: Task, recipe: Recipe, seed: int, weights: Path | None) -> nn.Module:
    """A network, trained or read from a file.

    Args:
        genome: The network.
        task: What it is trained on.
        recipe: How.
        seed: Decides its first weights and its batches.
        weights: A safetensors file: read where it exists, otherwise written after training.

    Raises:
        ValueError: When the file does not hold the weights of this network.
    """
    model = build(genome, seed)
    if weights is not None and weights.exists():
        try:
            model.load_state_dict(load_file(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(
                f"{weights}: expected weights of the network of this benchmark: {error}"
            ) from None
        return model
    if weights is not None:
        weights.parent.mkdir(parents=True, exist_ok=True)  # a mistake is said before the training
    train(model, task, recipe, seed)
    if weights is not None:
        save_file(model.state_dict(), weights)
    return model

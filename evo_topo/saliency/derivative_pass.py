"""One pass over a batch of examples: derivatives of the loss along gates and along other changes."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evo_topo.bfloat16 import has_fast_bfloat16
from evo_topo.curvature import Curvature
from evo_topo.edits import AnyEdit
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe
from evo_topo.saliency.changes import ChangeProbe, along
from evo_topo.saliency.growth import Growth
from evo_topo.saliency.local import LocalPrices
from evo_topo.saliency.obd import DerivativeSums, GateStatistics, loss_seeds

CURVATURE_SHARE = 0.5
"""Of the examples, those that tell the curvature along gates; all tell the slope, which is noisier. Over four
trained networks, the rank correlation of units falls by .001 to .006 for it (by a quarter, .006 to .012)."""


class Price(NamedTuple):
    """Loss change before training, promised one by it, and what says so."""

    loss_change: float
    promise: float
    criterion: str


def derivative_pass(
    model: nn.Module,
    genome: Genome,
    local: LocalPrices,
    grown: Mapping[AnyEdit, Growth],
    probe: Probe,
    curvature: Curvature,
    share: float,
    batch_size: int,
    seed: int,
) -> tuple[GateStatistics, dict[AnyEdit, Price]]:
    """Derivatives along all gates on all examples, and along the changes of other edits on a share.

    Args:
        model: Trained network of `genome`.
        genome: Its genome.
        local: Edits with a joint; it is shown what it needs.
        grown: Growths by edit; half of the share direct them, the other half say what they promise.
        probe: The examples.
        curvature: ``sampled`` or ``exact``.
        share: Of the batches, those that edits other than of units are priced on.
        batch_size: Examples whose activations are held at once.
        seed: Seed of the drawn labels.

    Returns:
        Statistics of the gates, and the prices of all edits of `local` and `grown`.
    """
    size = min(batch_size, -(-len(probe.inputs) // 2))
    batches = list(zip(*(torch.split(tensor, size) for tensor in probe), strict=True))
    used = max(2, round(share * len(batches)))
    curved = max(used, round(CURVATURE_SHARE * len(batches)))
    fast = probe.inputs.dtype == torch.float32 and has_fast_bfloat16(probe.inputs.device)
    joints = set(local.joints).union(*(growth.joints for growth in grown.values()))
    generator = torch.Generator().manual_seed(seed)
    with ChangeProbe(model, genome, joints) as changes:
        gates, growths = DerivativeSums(changes.width), DerivativeSums(len(grown))

        def add(number: int, inputs: Tensor, labels: Tensor) -> None:  # what it holds, the next can use
            logits = changes.forward(inputs, fast and number >= used)
            seeds = loss_seeds(logits, labels, curvature, 1, generator)
            responses = changes.responses(logits, islice(seeds, None if number < curved else 1))
            values = changes.values
            del logits
            gates.add(response.table for response in responses)
            if number >= used:
                return
            local.add(values, responses, labels)
            if number < used // 2:
                for growth in grown.values():
                    growth.observe(values, responses)
                return
            if number == used // 2:
                for growth in grown.values():
                    growth.settle()
            growths.add(_columns([along(responses, g.differences(values)) for g in grown.values()]))

        for number, batch in enumerate(batches):
            add(number, *batch)
        statistics = GateStatistics(*gates.mean(), changes.columns)
    criterion = "corrected" if local.is_measured else "obd"
    prices = {edit: Price(change, 0.0, criterion) for edit, change in local.found().items()}
    for edit, slope, curve in zip(grown, *_moments(growths), strict=True):
        # a direction that rises on other examples was noise: no step is the best one
        prices[edit] = Price(0.0, -0.5 * min(slope, 0.0) ** 2 / max(curve, 1e-30), "gauss-newton")
    return statistics, prices


def _columns(along_each: list[list[Tensor]]) -> list[Tensor]:
    """Tables (examples, edits), one per response, of derivatives by edit and response."""
    return [torch.stack(column, 1) for column in zip(*along_each, strict=True)]


def _moments(sums: DerivativeSums) -> tuple[list[float], list[float]]:
    """Slope and curvature of each column."""
    if not sums.count:
        return [], []
    slope, root = sums.mean()
    return slope.tolist(), root.double().square().sum(0).tolist()

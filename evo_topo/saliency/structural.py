"""One price list: predicted loss change and FLOP change of any edit.

Everything that an edit changes right away is priced by ``dL = E[<g, d>] + 1/2 E[<s, d>^2]`` (see `obd`):
units by their gates, local edits by what they change at their joint (see `local`). Edits that keep the
function cost nothing right away; what they promise is the decrease that their new parameters allow (see
`growth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from evo_topo.bfloat16 import has_fast_bfloat16
from evo_topo.curvature import Curvature
from evo_topo.edits import (
    AddUnits,
    AnyEdit,
    EditError,
    FlopChanges,
    GrowConnections,
    GrowKernel,
    PruneUnits,
    SplitBranch,
    SplitLayer,
    SplitUnits,
    Trade,
)
from evo_topo.genome import Genome
from evo_topo.inheritance import Probe, inherit
from evo_topo.inheritance.directions import layer_readings
from evo_topo.prices import PricedEdit
from evo_topo.saliency.ablation import mean_loss
from evo_topo.saliency.changes import ChangeProbe, along
from evo_topo.saliency.growth import Growth
from evo_topo.saliency.local import LocalPrices
from evo_topo.saliency.obd import DerivativeSums, GateStatistics, loss_seeds, set_saliency

MEASURED = 24
"""Examples that OBD of edits with a joint is corrected by. Over six trained networks, the lowest rank
correlation of kernels is then .83 (by 40 examples, too), of factorisations .95 (.97)."""
MEASURED_SHARE = 0.25
"""Of the examples, those on which edits without a joint are measured."""
CURVATURE_SHARE = 0.5
"""Of the examples, those that tell the curvature along gates; all tell the slope, which is noisier. Over four
trained networks, the rank correlation of units falls by .001 to .006 for it (by a quarter, .006 to .012)."""
DIAGONAL_SHARE = 0.125
"""Of the examples, those for the diagonal of OBD by which connections are chosen; all are held at once."""
DIRECTION_SHARE = 0.03125
"""Of the examples, those from which new units take their directions; all are held at once. Twice as many take
twice as long, and promises agree no better with those of four times as many examples."""

GROWN = (AddUnits, SplitLayer, SplitBranch, GrowKernel, GrowConnections)
"""Kinds whose new parameters start without effect."""


class _Price(NamedTuple):
    """Loss change right after inheritance, promised one after that, and what says so."""

    loss_change: float
    promise: float
    criterion: str


def price(
    model: nn.Module,
    genome: Genome,
    edits: Iterable[AnyEdit],
    inputs: Tensor,
    targets: Tensor,
    curvature: Curvature = "sampled",
    share: float = 0.125,
    batch_size: int = 64,
    seed: int = 0,
    measured: int = MEASURED,
) -> list[PricedEdit]:
    """Prices edits in one currency, by one pass over a batch of examples.

    Criteria of the records:

    - ``obd``: quadratic prediction, for prunes of units, interactions included. Without `measured`, for all
      edits with a joint, too.
    - ``corrected``: the same on some of the examples, corrected by what the edit does to the loss of the
      first few (see `local`), for all edits with a joint. Connections are chosen by the diagonal (LeCun et
      al. 1989), and priced with their interactions.
    - ``gauss-newton``: nothing is lost; new parameters promise what the best step along their
      Kronecker-factored Gauss-Newton direction gives.
    - ``saliency``: nothing is lost; a split of units promises minus their OBD saliency, which ranks splits
      and is no prediction: their first-order gain is zero, and the second-order one (splitting steepest
      descent, Liu, Wu & Wang 2019) needs a second derivative that ReLU lacks.
    - ``exact``: a fusion changes nothing.
    - ``measured``: no joint; the loss of the inherited child on a quarter of the examples.
    - ``sum``: a trade, as the sum of its parts on the parent.

    Args:
        model: Trained network of `genome`; cross-entropy of its softmax is the loss. It stays as it is.
        genome: Its genome.
        edits: Edits that apply to it.
        inputs: Normalised inputs (examples, *input_shape); about 1,000.
        targets: Class of each example (examples,).
        curvature: ``sampled``, or ``exact`` at one more backward pass per class.
        share: Of the examples, those that edits with a joint and growths are priced on, at least two batches;
            half of them find the directions of growths, and the others say what these promise. Twice as many
            rank growths better (.45 instead of .24 on four digits networks) and take an eighth longer in all.
        batch_size: Examples whose activations are held at once.
        seed: Seed of the drawn labels.
        measured: Of these, the examples whose loss is measured for each edit with a joint.

    Returns:
        One record per edit, in order.

    Raises:
        EditError: When an edit does not apply.
        ValueError: If `measured` is below 0.
    """
    found = price_with_gates(
        model, genome, edits, inputs, targets, curvature, share, batch_size, seed, measured
    )
    return found[1]


def price_with_gates(
    model: nn.Module,
    genome: Genome,
    edits: Iterable[AnyEdit],
    inputs: Tensor,
    targets: Tensor,
    curvature: Curvature = "sampled",
    share: float = 0.125,
    batch_size: int = 64,
    seed: int = 0,
    measured: int = MEASURED,
) -> tuple[GateStatistics, list[PricedEdit]]:
    """Gate statistics and prices of edits from the same pass; arguments and errors as in `price`."""
    if measured < 0:
        raise ValueError(f"measured: expected a number of examples, at least 0, got {measured}")
    wanted = list(edits)
    parts = dict.fromkeys(part for edit in wanted for part in _parts(genome, edit))
    probe = Probe(inputs, targets)
    few = probe.first(max(1, round(MEASURED_SHARE * len(inputs))))
    needs_readings = any(isinstance(e, AddUnits) and e.directions != "random" for e in parts)
    seen = probe.first(max(1, round(DIAGONAL_SHARE * len(inputs))))
    directing = probe.first(max(1, round(DIRECTION_SHARE * len(inputs))))
    readings = layer_readings(model, genome, directing) if needs_readings else {}
    local = LocalPrices(model, genome, [e for e in parts if _is_local(genome, e)], seen, measured)
    grown: dict[AnyEdit, Growth] = {
        e: Growth(model, genome, e, readings) for e in parts if isinstance(e, GROWN)
    }
    readings = {}
    statistics, prices = _pass(model, genome, local, grown, probe, curvature, share, batch_size, seed)
    before: float | None = None
    for edit in parts:
        if isinstance(edit, PruneUnits | SplitUnits):
            saliency = set_saliency(statistics, dict(edit.units))
            is_prune = isinstance(edit, PruneUnits)
            prices[edit] = (
                _Price(saliency, 0.0, "obd") if is_prune else _Price(0.0, min(-saliency, 0.0), "saliency")
            )
        elif edit not in prices and edit.is_function_preserving:
            prices[edit] = _Price(0.0, 0.0, "exact")
        elif edit not in prices:
            before = mean_loss(model, *few) if before is None else before
            prices[edit] = _Price(mean_loss(inherit(model, genome, edit), *few) - before, 0.0, "measured")
    flop_changes = FlopChanges(genome)
    return statistics, [_record(genome, e, prices, flop_changes.of(e)) for e in wanted]


def _pass(
    model: nn.Module,
    genome: Genome,
    local: LocalPrices,
    grown: Mapping[AnyEdit, Growth],
    probe: Probe,
    curvature: Curvature,
    share: float,
    batch_size: int,
    seed: int,
) -> tuple[GateStatistics, dict[AnyEdit, _Price]]:
    """Derivatives along all gates on all examples, and along the changes of other edits on a share."""
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
    prices = {edit: _Price(change, 0.0, criterion) for edit, change in local.found().items()}
    for edit, slope, curve in zip(grown, *_moments(growths), strict=True):
        # a direction that rises on other examples was noise: no step is the best one
        prices[edit] = _Price(0.0, -0.5 * min(slope, 0.0) ** 2 / max(curve, 1e-30), "gauss-newton")
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


def _is_local(genome: Genome, edit: AnyEdit) -> bool:
    """Whether an edit is priced by what it changes at its joint."""
    return not edit.is_function_preserving and edit.joint(genome) is not None


def _parts(genome: Genome, edit: AnyEdit) -> Sequence[AnyEdit]:
    """The edits of the parent whose prices make up that of an edit."""
    if not isinstance(edit, Trade):
        return (edit,)
    second = _on_parent(genome, edit)
    return (edit.first,) if second is None else (edit.first, second)


def _on_parent(genome: Genome, trade: Trade) -> AnyEdit | None:
    """The second edit of a trade as one of the parent; None where it touches what the first has made."""
    second = trade.second
    if isinstance(second, PruneUnits | SplitUnits):
        origins = trade.first.unit_map(genome)
        units = []
        for name, chosen in second.units:
            origin = origins.get(name)
            back = chosen if origin is None else sorted({origin[unit] for unit in chosen} - {-1})
            units.append((name, tuple(back)))
        second = type(second)(tuple(units))
    try:
        second.apply(genome)
    except EditError:
        return None
    return second


def _record(genome: Genome, edit: AnyEdit, prices: Mapping[AnyEdit, _Price], flop_change: int) -> PricedEdit:
    parts = [prices[part] for part in _parts(genome, edit)]
    criterion = "sum" if isinstance(edit, Trade) else parts[0].criterion
    loss_change, promise = sum(p.loss_change for p in parts), sum(p.promise for p in parts)
    return PricedEdit(edit, loss_change, promise, flop_change, criterion)

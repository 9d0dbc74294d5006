"""One price list: predicted loss change and FLOP change of any edit.

Everything that an edit changes right away is priced by ``dL = E[<g, d>] + 1/2 E[<s, d>^2]`` (see `obd`):
units by their gates, local edits by what they change at their joint (see `local`). Edits that keep the
function cost nothing right away; what they promise is the decrease that their new parameters allow (see
`growth`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from evo_topo.curvature import Curvature
from evo_topo.edits import (
    AddUnits,
    AnyEdit,
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
from evo_topo.saliency.derivative_pass import Price, derivative_pass
from evo_topo.saliency.growth import Growth
from evo_topo.saliency.local import LocalPrices
from evo_topo.saliency.obd import GateStatistics, set_saliency

MEASURED = 24
"""Examples that OBD of edits with a joint is corrected by. Over six trained networks, the lowest rank
correlation of kernels is then .83 (by 40 examples, too), of factorisations .95 (.97)."""
MEASURED_SHARE = 0.25
"""Of the examples, those on which edits without a joint are measured."""
DIAGONAL_SHARE = 0.125
"""Of the examples, those for the diagonal of OBD by which connections are chosen; all are held at once."""
DIRECTION_SHARE = 0.03125
"""Of the examples, those from which new units take their directions; all are held at once. Twice as many take
twice as long, and promises agree no better with those of four times as many examples."""

GROWN = (AddUnits, SplitLayer, SplitBranch, GrowKernel, GrowConnections)
"""Kinds whose new parameters start without effect."""


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
    refit: bool = False,
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
        refit: Whether edits with a joint are priced with the layer there refit by least squares, on as many
            examples as choose connections: what `reconstruct` makes of them, but for the layers behind.

    Returns:
        One record per edit, in order.

    Raises:
        EditError: When an edit does not apply.
        ValueError: If `measured` is below 0, or there is one example alone and a growth.
    """
    found = price_with_gates(
        model, genome, edits, inputs, targets, curvature, share, batch_size, seed, measured, refit
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
    refit: bool = False,
) -> tuple[GateStatistics, list[PricedEdit]]:
    """Gate statistics and prices of edits from the same pass; arguments and errors as in `price`."""
    if measured < 0:
        raise ValueError(f"measured: expected a number of examples, at least 0, got {measured}")
    wanted = list(edits)
    flop_changes = FlopChanges(genome)
    savings = [flop_changes.of(edit) for edit in wanted]  # first, for it refuses what does not apply
    parts = dict.fromkeys(part for edit in wanted for part in _parts(genome, edit))
    probe = Probe(inputs, targets)
    few = probe.first(max(1, round(MEASURED_SHARE * len(inputs))))
    needs_readings = any(isinstance(e, AddUnits) and e.directions != "random" for e in parts)
    seen = probe.first(max(1, round(DIAGONAL_SHARE * len(inputs))))
    directing = probe.first(max(1, round(DIRECTION_SHARE * len(inputs))))
    readings = layer_readings(model, genome, directing) if needs_readings else {}
    local = LocalPrices(model, genome, [e for e in parts if _is_local(genome, e)], seen, measured, refit)
    grown: dict[AnyEdit, Growth] = {
        e: Growth(model, genome, e, readings) for e in parts if isinstance(e, GROWN)
    }
    if grown and len(inputs) < 2:
        raise ValueError(f"inputs: expected two examples, one to direct growths, got {len(inputs)}")
    readings = {}
    statistics, prices = derivative_pass(
        model, genome, local, grown, probe, curvature, share, batch_size, seed
    )
    before: float | None = None
    for edit in parts:
        if isinstance(edit, PruneUnits | SplitUnits):
            saliency = set_saliency(statistics, dict(edit.units))
            is_prune = isinstance(edit, PruneUnits)
            prices[edit] = (
                Price(saliency, 0.0, "obd") if is_prune else Price(0.0, min(-saliency, 0.0), "saliency")
            )
        elif edit not in prices and edit.is_function_preserving:
            prices[edit] = Price(0.0, 0.0, "exact")
        elif edit not in prices:
            before = mean_loss(model, *few) if before is None else before
            prices[edit] = Price(mean_loss(inherit(model, genome, edit), *few) - before, 0.0, "measured")
    return statistics, [_record(genome, *each, prices) for each in zip(wanted, savings, strict=True)]


def _is_local(genome: Genome, edit: AnyEdit) -> bool:
    """Whether an edit is priced by what it changes at its joint."""
    return not edit.is_function_preserving and edit.joint(genome) is not None


def _parts(genome: Genome, edit: AnyEdit) -> Sequence[AnyEdit]:
    """The edits of the parent whose prices make up that of an edit."""
    return edit.parts(genome) if isinstance(edit, Trade) else (edit,)


def _record(genome: Genome, edit: AnyEdit, flop_change: int, prices: Mapping[AnyEdit, Price]) -> PricedEdit:
    parts = [prices[part] for part in _parts(genome, edit)]
    criterion = "sum" if isinstance(edit, Trade) else parts[0].criterion
    loss_change, promise = sum(p.loss_change for p in parts), sum(p.promise for p in parts)
    return PricedEdit(edit, loss_change, promise, flop_change, criterion)

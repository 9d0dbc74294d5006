"""Choosing mutations by their price: predicted loss change per FLOP. Needs no torch.

Prunes of all kinds are sampled with probability inverse to what they are predicted to cost per FLOP saved,
growths with probability proportional to what they promise per FLOP; splits go to the units of highest
saliency per FLOP. The size, a share of the parent's FLOPs, is drawn first: edits of units come near it, and
others that save far less stand back. Some prunes become trades.
Controls (`random_prices`, and magnitude in `saliency`) differ in the price list alone.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import chain
from typing import Literal, NamedTuple

from evo_topo.calibration import Calibration
from evo_topo.choice import Choice
from evo_topo.cost import count_flops, count_macs
from evo_topo.edits import AnyEdit, EditError, PruneLayer, RandomSource, Trade
from evo_topo.genome import Genome
from evo_topo.prices import Prices, UnitPrices
from evo_topo.units import unit_table

Mutations = Literal["all", "prunes", "growths"]
"""Which edits a mutation may be: those that save FLOPs, those that do not, or both, and trades of the two."""

TRADES = 0.01
"""Share of the prunes that become trades, where a growth fits. With 0.05 they were 8 % of children on
Fashion-MNIST, for they are new to a run more often than prunes; 6 % of them led to a final population, 23 %
of the prunes."""
CHILDREN_KEPT = 256
"""Networks that are not made anew where their edit is drawn again: so were 73 % of the mutations of the
first 6,000 children at 1,000 parents. With four times as many it would have been 77 %, for more memory."""
SMALL, SMALLEST = 0.25, 0.5
"""Of the target, and of the smallest there is: prunes that save less than these shares stand back."""


class Proposal(NamedTuple):
    """An edit with its price.

    Attributes:
        edit: The mutation.
        genome: The child.
        predicted_loss_change: By the price list; 0 where the edit preserves the function.
        flop_change: FLOPs of the child minus those of the parent.
        promise: Predicted loss change, at most 0, that new parameters add when they are trained.
    """

    edit: AnyEdit
    genome: Genome
    predicted_loss_change: float
    flop_change: int
    promise: float = 0.0


def propose(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    growth: float = 0.1,
    smallest: float = 0.1,
    largest: float = 0.75,
    calibration: Calibration | None = None,
    mutations: Mutations = "all",
) -> Proposal:
    """Samples an edit: prunes by predicted loss per FLOP, splits by saliency per FLOP.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        growth: Probability of growing rather than pruning, where both apply.
        smallest: Smallest size that is drawn, as a share of the parent's FLOPs.
        largest: Largest size; sizes between are log-uniform. Units are taken to come near it, at least one;
            of other prunes, those that save less than half of the smallest come last.
        calibration: What predicted loss changes come to after training, for comparing kinds.
        mutations: Which edits may be proposed; where it is not all, `growth` says nothing.

    Raises:
        EditError: When no edit applies to this genome.
    """
    share = smallest * (largest / smallest) ** rng.random()
    target = share * count_macs(genome)
    choice = Choice(genome, prices, rng, calibration or Calibration())
    grows = rng.random() < growth
    least = max(SMALL * target, SMALLEST * smallest * count_macs(genome))
    growths, prunes = choice.growths(target), choice.prunes(target, least)
    both = chain(growths, prunes) if grows else chain(prunes, growths)
    for candidate in {"all": both, "prunes": prunes, "growths": growths}[mutations]:
        try:
            child = _child(genome, candidate.edit)
        except EditError:
            continue  # over the size limits of a genome; the next candidate may fit
        traded = None
        if mutations == "all" and prices.edits and count_flops(child) < count_flops(genome):
            traded = choice.trade(candidate, child) if rng.random() < TRADES else None
        if traded is not None:
            candidate, child = traded
        flop_change = count_flops(child) - count_flops(genome)
        return Proposal(candidate.edit, child, candidate.loss_change, flop_change, candidate.promise)
    raise EditError("no edit applies to this genome")


def rivals(
    genome: Genome,
    prices: Prices,
    rng: RandomSource,
    proposal: Proposal,
    most: int,
    calibration: Calibration | None = None,
) -> list[Proposal]:
    """Other prunes of about the size of a proposal, each from a draw of its own.

    Prices rank edits roughly; what they do to the loss can be measured once the child has inherited, before
    it trains, and the best one be trained alone.

    Args:
        genome: The parent.
        prices: Its price list.
        rng: Source of uniform numbers.
        proposal: From `propose`.
        most: Largest number of rivals.
        calibration: As for `propose`.

    Returns:
        Prunes of other networks; none where the proposal is a growth or a trade.
    """
    if proposal.flop_change >= 0 or isinstance(proposal.edit, Trade):
        return []
    choice = Choice(genome, prices, rng, calibration or Calibration())
    found = {proposal.genome.fingerprint: proposal}
    for _ in range(most):
        saved = -proposal.flop_change / 2
        for candidate in choice.prunes(saved, SMALL * saved):
            try:
                child = _child(genome, candidate.edit)
            except EditError:
                continue
            flop_change = count_flops(child) - count_flops(genome)
            if flop_change < 0 and child.fingerprint not in found:
                found[child.fingerprint] = Proposal(
                    candidate.edit, child, candidate.loss_change, flop_change, candidate.promise
                )
                break
    return list(found.values())[1:]


@lru_cache(maxsize=CHILDREN_KEPT)
def _child(genome: Genome, edit: AnyEdit) -> Genome:
    """The child, one object for equal arguments, so that what is computed for it is kept, too."""
    return edit.apply(genome)


def random_prices(genome: Genome, rng: RandomSource) -> Prices:
    """A price list of random numbers: the control that knows nothing.

    A layer costs about as much as the units of a group of its width, or layers would always be cheapest.
    """
    units = {}
    for group in unit_table(genome).groups.values():
        order = sorted(range(group.width), key=lambda _: rng.random())
        total = 0.0
        units[group.name] = UnitPrices(tuple(order), tuple([total := total + rng.random() for _ in order]))
    layers = {edit.layer: genome.shapes[edit.layer][0] * rng.random() for edit in PruneLayer.legal(genome)}
    return Prices("random", units, layers)

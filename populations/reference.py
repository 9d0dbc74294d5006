"""The founder for comparison: trained in one go, for as long as the longest line of descent. No torch."""

from __future__ import annotations

from pathlib import Path

import msgspec

from evo_topo.genome import Genome
from populations.births import Birth, as_individual, order_for
from populations.config import Config
from populations.dispatch import EvolutionError
from populations.files import COMPARISON, FRONT
from populations.individual import Individual, Outcome
from populations.orders import Order, outcome_path, weights_path
from populations.seeds import derive_seed

REFERENCE_ID = -1
"""Marks its files; it is no part of the lineage."""


def reference_order(config: Config, founder: Genome, run_dir: Path, examples: int) -> Order:
    """What a worker needs to train the founder on so many examples."""
    order = order_for(_birth(founder), config, run_dir, examples)
    seed = derive_seed(config.seed, "child", 0)  # it begins with the founder's weights
    return msgspec.structs.replace(order, seed=seed)


def reference_from(outcome: Outcome, founder: Genome) -> Individual:
    """The founder for comparison, developed.

    Raises:
        EvolutionError: When it could not be trained.
    """
    if outcome.status != "ok":
        raise EvolutionError(
            f"the founder could not be trained for comparison: {outcome.reason}; "
            "resume the run with --no-compare"
        )
    return as_individual(_birth(founder), outcome)


def forget_reference(run_dir: Path) -> None:
    """Removes its files from a run folder."""
    weights_path(run_dir, REFERENCE_ID).unlink(missing_ok=True)
    outcome_path(run_dir, REFERENCE_ID).unlink(missing_ok=True)


def forget_results(run_dir: Path) -> None:
    """Removes what a run ended with, because it goes on; lines of descent grow longer."""
    forget_reference(run_dir)
    for name in (FRONT, COMPARISON):
        (run_dir / name).unlink(missing_ok=True)


def _birth(founder: Genome) -> Birth:
    return Birth(REFERENCE_ID, 0, None, None, founder, None)

"""An individual adds up what its line of descent cost, and its genome's cost."""

import msgspec
import pytest

from evo_topo import count_flops, count_macs, count_params
from populations.individual import Individual, Outcome
from tests.runs import chain_genome


def an_individual(**changes: object) -> Individual:
    outcome = Outcome("ok", accuracy=0.5, examples=10, flops=100, seconds=2.0)
    individual = Individual(3, 1, 2, None, chain_genome(), None, None, 7, 70, 1.5, outcome)
    return msgspec.structs.replace(individual, **changes)


def test_totals_are_own_plus_inherited() -> None:
    individual = an_individual()
    assert (individual.total_examples, individual.total_flops, individual.total_seconds) == (17, 170, 3.5)


def test_costs_are_those_of_the_genome() -> None:
    individual, genome = an_individual(), chain_genome()
    costs = (individual.macs, individual.flops, individual.params)
    assert costs == (count_macs(genome), count_flops(genome), count_params(genome))


@pytest.mark.parametrize("status", ["ok", "stopped", "diverged", "out-of-memory", "failed", "crashed"])
def test_only_ok_is_alive_and_who_was_stopped_did_not_fail(status: str) -> None:
    individual = an_individual(outcome=Outcome(status))
    assert individual.is_alive == (status == "ok")
    assert individual.is_failed == (status not in ("ok", "stopped"))


def test_json_round_trip_is_exact() -> None:
    individual = an_individual()
    assert msgspec.json.decode(msgspec.json.encode(individual), type=Individual) == individual


@pytest.mark.parametrize(
    ("field", "value"),
    [("accuracy", 1.1), ("accuracy", -0.1), ("loss", 1e999), ("examples", -1), ("seconds", -1.0)],
)
def test_absurd_outcomes_are_not_read(field: str, value: float) -> None:
    with pytest.raises(msgspec.ValidationError, match=field):
        msgspec.convert({"status": "ok", field: value}, type=Outcome)

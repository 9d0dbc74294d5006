"""The polish as a whole run has it; how long it may take is in `test_polish_plan`."""

import dataclasses

import msgspec
import pytest

from populations import evolve, load_run
from populations.births import order_for
from populations.dispatch import EvolutionError
from populations.orders import Order
from populations.reference import REFERENCE_ID, reference_order
from tests.small import small_config, small_founder, small_task


@pytest.mark.parametrize("compare", [True, False])
def test_the_polish_can_distil(tmp_path, monkeypatch, compare):
    orders: list[Order] = []

    def seen(*arguments: object, **options: object) -> Order:
        orders.append(order_for(*arguments, **options))
        return orders[-1]

    monkeypatch.setattr("populations.dispatch.order_for", seen)
    plain, taught = (
        evolve(
            small_config(tmp_path / str(share), generations=1, distill=share, compare=compare),
            small_task(),
            small_founder(),
        )
        for share in (0.0, 0.5)
    )
    bred, polish = ([i for i in load_run(r.run_dir) if i.generation == 1] for r in (plain, taught)), 2
    assert len({tuple(i.outcome.weights_sha256 for i in children) for children in bred}) == 1
    polished = [[i for i in load_run(r.run_dir) if i.generation == polish] for r in (plain, taught)]
    assert [i.genome for i in polished[0]] == [i.genome for i in polished[1]]
    [teacher] = {order.teacher for order in orders if order.teacher is not None}
    if compare:
        assert (teacher.id, teacher.genome) == (REFERENCE_ID, small_founder().to_json())
    else:  # the costliest, which nobody taught
        assert (teacher.id, teacher.sha256) == (polished[1][-1].id, polished[0][-1].outcome.weights_sha256)
    for before, after in zip(*polished, strict=True):
        assert (before.outcome.weights_sha256 != after.outcome.weights_sha256) == (after.id != teacher.id)


def test_a_teacher_that_cannot_be_trained_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("populations.polish.reference_order", diverging)
    with pytest.raises(EvolutionError, match="nobody can learn from it"):
        evolve(small_config(tmp_path / "run", generations=1, distill=0.5), small_task(), small_founder())


def diverging(*arguments: object) -> Order:
    """The order for comparison, at a rate that none survives."""
    order = reference_order(*arguments)
    recipe = dataclasses.replace(order.recipe, learning_rate=1e6)
    return msgspec.structs.replace(order, recipe=recipe)

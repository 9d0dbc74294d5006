import pytest

from evo_topo.edits import SplitLayer, SplitUnits
from populations import dispatch, evolve, load_run
from populations.births import SHRINK
from populations.founders import conv_net
from tests.bred import member, parent, parents_of
from tests.small import small_config, small_task

LARGE, MIDDLE, SMALL = (conv_net((1, 8, 8), 10, (width, width), (1, 2)) for width in (32, 16, 4))


def one(genome, accuracy):
    return parent(genome, accuracy=accuracy)


def test_the_cheapest_draws_the_front_out_as_long_as_it_is_accurate():
    dear, good, poor = one(LARGE, 0.9), one(SMALL, 0.83), one(SMALL, 0.82)
    assert parents_of(member(dear), member(good), floor=0.8).outward is good
    assert parents_of(member(dear), member(poor), floor=0.8).outward is None


@pytest.mark.parametrize(
    ("accuracies", "pays"),
    [((0.90, 0.80), True), ((0.9, 0.899), True), ((0.9, 0.9), False), ((0.9, 0.91), False)],
)
def test_the_costliest_is_enlarged_as_long_as_twice_the_flops_make_errors_fewer(accuracies, pays):
    costliest, half = one(LARGE, accuracies[0]), one(MIDDLE, accuracies[1])
    for others in ((half,), (half, one(SMALL, 0.5))):
        members = [member(individual) for individual in (costliest, *others)]
        upward = parents_of(*members, floor=0.5, founder_flops=half.flops).upward
        assert upward is (costliest if pays else None)


def test_a_founder_alone_is_enlarged():
    founder = one(MIDDLE, 0.6)
    assert parents_of(member(founder), floor=0.5, founder_flops=founder.flops).upward is founder


def test_nobody_is_enlarged_to_what_the_founder_was():
    members = [member(one(MIDDLE, 0.9)), member(one(SMALL, 0.6))]
    assert parents_of(*members, floor=0.5, founder_flops=one(LARGE, 0.9).flops).upward is None


def test_large_steps_up_train_long_at_the_full_rate(tmp_path, monkeypatch):
    orders = {}

    def spied(birth, *args, **settings):
        orders[birth.id] = order_for(birth, *args, **settings)
        return orders[birth.id]

    order_for = dispatch.order_for
    monkeypatch.setattr(dispatch, "order_for", spied)
    config = small_config(tmp_path / "run", ceiling=20.0, upward=0.5, train_on=0.0, polish_examples=0)
    evolve(config, small_task(), conv_net((1, 8, 8), 10, (4, 4), (1, 2)))
    founder, *others = load_run(tmp_path / "run")
    large = [i for i in others if orders[i.id].recipe.learning_rate == config.recipe.learning_rate]
    assert 1 < len(large) < len(others)
    assert large == [i for i in others if i.is_enlarged]
    for one in large:
        assert type(one.edit) in (SplitUnits, SplitLayer)
        assert one.flops > founder.flops
        assert one.outcome.examples == config.founder_examples / 2
        assert (orders[one.id].hurdle, orders[one.id].shrink) == (None, SHRINK)
    rates = {orders[i.id].recipe.learning_rate for i in others if i not in large}
    assert rates == {config.inherited_rate * config.recipe.learning_rate}


@pytest.mark.slow
def test_a_run_with_large_steps_up_resumes_to_the_same_end(tmp_path):
    def stop(progress):
        if progress.generation == 2 and progress.children_done == 1:
            raise KeyboardInterrupt

    settings = {"ceiling": 20.0, "upward": 0.5, "train_on": 0.0, "polish_examples": 0}
    founder = conv_net((1, 8, 8), 10, (4, 4), (1, 2))
    evolve(small_config(tmp_path / "a", **settings), small_task(), founder)
    with pytest.raises(KeyboardInterrupt):
        evolve(small_config(tmp_path / "b", **settings), small_task(), founder, stop)
    evolve(small_config(tmp_path / "b", **settings), resume=True)
    ends = [
        [(i.id, i.edit, i.outcome.examples, i.outcome.weights_sha256) for i in load_run(tmp_path / name)]
        for name in "ab"
    ]
    assert ends[0] == ends[1]

from pathlib import Path

import pytest

from evo_topo.cost import count_flops
from evo_topo.genome import Genome
from populations.births import SHRINK, as_individual, further_training, order_for, scaled_examples
from populations.files import START
from populations.founders import conv_net
from populations.individual import Outcome, Screened
from tests.bred import children, member, parent, screening_births
from tests.small import small_config


def test_the_individual_is_what_the_worker_chose():
    birth = next(birth for birth in screening_births(screened=3) if len(birth.rivals) == 2)
    own, _, last = birth.options
    screened = tuple(
        Screened(option.edit, option.genome.fingerprint, count_flops(option.genome), 1.0)
        for option in reversed(birth.options)
    )
    child = as_individual(birth, Outcome("ok", screened=screened))
    assert (child.id, child.edit, child.genome) == (birth.id, last.edit, last.genome)
    assert child.predicted_loss_change == last.predicted_loss_change
    failed = as_individual(birth, Outcome("crashed"))  # nobody knows what it would have chosen
    assert (failed.edit, failed.genome) == (own.edit, own.genome)
    assert {s.fingerprint for s in failed.outcome.screened} == {s.fingerprint for s in screened}
    assert {s.loss for s in failed.outcome.screened} == {None}


def test_who_does_not_inherit_owes_nothing_to_the_parent():
    older = parent(examples=100, flops=1000, seconds=3.0)
    birth, outcome = further_training(older, 9, 3), Outcome("ok", examples=50)
    assert as_individual(birth, outcome).total_examples == 150
    alone = as_individual(birth, outcome, inherits=False)
    assert (alone.parent, alone.total_examples, alone.total_flops, alone.total_seconds) == (7, 50, 0, 0.0)


def test_without_inheritance_an_order_is_that_of_a_founder(tmp_path):
    config = small_config(inherit=False, train_on=0.0)
    (birth,) = children(config, member(parent()), 1)
    order = order_for(birth, config, tmp_path, 123)
    assert (order.parent, order.parent_sha256, order.edit) == (None, "", None)
    assert Genome.from_json(order.genome) == birth.genome != parent().genome


def test_an_order_holds_what_the_recipe_asks(tmp_path):
    config = small_config()
    order = order_for(further_training(parent(), 9, 3), config, tmp_path, 123, rate=0.5)
    assert (order.id, order.parent, order.edit, order.recipe.examples) == (9, 7, None, 123)
    assert order.recipe.learning_rate == 0.5 * config.recipe.learning_rate


def test_large_steps_up_alone_shrink_what_they_inherit_unless_the_founder_came_with_weights(tmp_path):
    birth = further_training(parent(), 9, 3)
    large = birth._replace(is_enlarged=True)
    assert order_for(birth, small_config(), tmp_path, 64).shrink == 1
    assert order_for(large, small_config(), tmp_path, 64).shrink == SHRINK
    assert order_for(large, small_config(inherit=False), tmp_path, 64).shrink == 1
    (tmp_path / START).touch()
    assert order_for(large, small_config(), tmp_path, 64).shrink == 1


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_cheap_networks_get_more_examples(exponent):
    founder, small = (conv_net((1, 8, 8), 10, widths, (1, 2)) for widths in ((16, 16), (4, 4)))
    ratio = count_flops(founder) / count_flops(small)
    assert scaled_examples(1000, small, founder, exponent) == pytest.approx(1000 * ratio**exponent, abs=1)
    assert scaled_examples(1000, founder, small, exponent) == 1000


def test_orders_name_the_run_folder_from_wherever_a_worker_was_started():
    birth = further_training(parent(), 1, 1)
    assert order_for(birth, small_config(), Path("runs/one"), 64).run_dir == str(Path.cwd() / "runs/one")

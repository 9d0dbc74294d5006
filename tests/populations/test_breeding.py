import math
import random

import msgspec

from evo_topo.calibration import Calibration
from evo_topo.cost import count_flops
from evo_topo.edits import SplitLayer, SplitUnits
from evo_topo.mutation import Proposal
from populations.breeding import breed, make_toolbox
from populations.founders import conv_net
from tests.bred import children, member, parent, parents_of, screening_births
from tests.small import small_config, small_founder

POOR = parent(accuracy=0.21).outcome


def test_a_child_depends_on_its_number_alone():
    config = small_config(accuracy_floor=1.0)
    births = children(config, member(parent()), 12)
    random.seed(99)
    assert children(config, member(parent()), 12) == births
    assert len({birth.genome for birth in births}) > 3
    assert [birth.id for birth in births] == list(range(12))
    assert all((birth.edit is None) == (birth.genome == birth.parent.genome) for birth in births)


def test_networks_that_were_tried_are_not_tried_again():
    config = small_config(train_on=0.0, growth=0.25, accuracy_floor=1.0)
    known = {birth.genome.fingerprint for birth in children(config, member(parent()), 40)}
    again = [
        birth.genome.fingerprint in known for birth in children(config, member(parent()), 40, known=known)
    ]
    assert sum(again) < 10


def test_where_every_network_was_tried_there_is_a_child_all_the_same():
    class Everything:
        def __contains__(self, _):
            return True

    config = small_config(train_on=0.0)
    assert all(birth.edit for birth in children(config, member(parent()), 5, known=Everything()))


def test_the_ceiling_holds():
    config, founder = small_config(growth=1.0, train_on=0.0, accuracy_floor=1.0), small_founder()
    ceiling = 1.05 * count_flops(founder)
    births = children(config, member(parent()), 30, ceiling)
    assert all(count_flops(birth.genome) <= ceiling for birth in births)
    assert any(count_flops(birth.genome) > ceiling for birth in children(config, member(parent()), 30))


def test_far_above_the_ceiling_prunes_lead_down():
    founder = count_flops(small_founder())
    births = children(small_config(train_on=0.0), member(parent()), 20, 0.01 * founder)
    assert all(birth.edit for birth in births)
    assert all(count_flops(birth.genome) <= founder for birth in births)


def test_a_prune_that_became_a_trade_holds_the_ceiling_as_well():
    founder = small_founder()
    edit = SplitUnits((("conv1", (0,)),))
    child = edit.apply(founder)
    over = Proposal(edit, child, 0.0, count_flops(child) - count_flops(founder))
    config = small_config(train_on=0.0)
    toolbox = make_toolbox(config)
    toolbox.register("mutate", lambda *_, **__: over)  # as a trade may be that saves nothing
    parents = parents_of(member(parent()), floor=config.accuracy_floor)
    for ceiling, expected in ((count_flops(founder), None), (count_flops(child), edit)):
        assert breed(config, toolbox, parents, ceiling, 1, 1, Calibration()).edit == expected


def test_growths_alone_train_on_where_the_ceiling_leaves_no_room():
    config, founder = small_config(mutations="growths", train_on=0.0), small_founder()
    births = children(config, member(parent()), 20, count_flops(founder))
    assert {birth.edit for birth in births} == {None}
    births = children(config, member(parent()), 20, 2 * count_flops(founder))
    assert all(count_flops(b.genome) > count_flops(founder) for b in births if b.edit)
    assert any(b.edit for b in births)


def test_prunes_have_rivals_that_were_not_tried_before():
    births = screening_births(screened=3)
    assert any(len(birth.rivals) == 2 for birth in births)
    assert all(b.options[0] == b and len(b.options) == 1 + len(b.rivals) for b in births)
    for birth in births:
        fingerprints = [option.genome.fingerprint for option in birth.options]
        assert len(set(fingerprints)) == len(fingerprints)
        assert all(option.edit.apply(birth.parent.genome) == option.genome for option in birth.options)
    assert not any(birth.rivals for birth in screening_births(screened=1))
    assert not any(birth.rivals for birth in screening_births(screened=3, inherit=False))
    known = {rival.genome.fingerprint for birth in births for rival in birth.rivals}
    again = children(small_config(train_on=0.0, growth=0.0), member(births[0].parent), 12, known=known)
    assert not known & {rival.genome.fingerprint for birth in again for rival in birth.rivals}


def test_without_prices_a_child_only_trains_on():
    births = children(small_config(), member(parent(prices=None)), 5)
    assert {birth.edit for birth in births} == {None}


def test_the_cheapest_is_pruned_in_large_steps():
    large = conv_net((1, 8, 8), 10, (16, 16), (1, 2))
    births = children(small_config(train_on=0.0, growth=1.0, accuracy_floor=0.2), member(parent(large)), 20)
    saved = [1 - count_flops(birth.genome) / count_flops(large) for birth in births]
    assert sorted(saved)[3] > 0.2  # trades save nothing


def test_a_share_of_the_children_draws_the_front_out():
    config = small_config(train_on=0.0, accuracy_floor=0.2, outward=0.4)
    cheap = parent(conv_net((1, 8, 8), 10, (8, 8), (1, 2)), accuracy=0.8)
    others = [parent(conv_net((1, 8, 8), 10, (w, 16), (1, 2)), accuracy=0.9) for w in range(16, 48)]
    for one, expected in ((cheap, 0.4), (msgspec.structs.replace(cheap, outcome=POOR), 0.0)):
        parents = parents_of(*map(member, (one, *others)), floor=config.accuracy_floor)
        toolbox = make_toolbox(config)
        toolbox.register("choose", lambda members: members[-1:])
        births = [breed(config, toolbox, parents, math.inf, i, 1, Calibration()) for i in range(100)]
        share = sum(birth.parent is one for birth in births) / len(births)
        assert abs(share - expected) < 0.15


def test_growths_alone_draw_no_front_out():
    cheap, dear = parent(accuracy=0.9), parent(conv_net((1, 8, 8), 10, (16, 16), (1, 2)), accuracy=0.9)
    for mutations, expected in (("all", {True}), ("growths", {False})):
        config = small_config(train_on=0.0, accuracy_floor=0.2, outward=1.0, mutations=mutations)
        toolbox, parents = make_toolbox(config), parents_of(member(cheap), member(dear), floor=0.2)
        toolbox.register("choose", lambda members: members[-1:])
        births = [breed(config, toolbox, parents, math.inf, i, 1, Calibration()) for i in range(5)]
        assert {birth.parent is parents.outward for birth in births} == expected


def enlarging(ceiling=math.inf, count=60, **changes):
    """Children of a founder that may be enlarged: it is the costliest, and nobody was as large."""
    config = small_config(**{"train_on": 0.0, "accuracy_floor": 1.0, "growth": 0.0, **changes})
    founder = small_founder()
    parents = parents_of(member(parent()), floor=config.accuracy_floor, founder_flops=count_flops(founder))
    toolbox = make_toolbox(config)
    births = [breed(config, toolbox, parents, ceiling, i, 1, Calibration()) for i in range(count)]
    return [birth for birth in births if count_flops(birth.genome) > count_flops(founder)], births


def test_a_share_of_the_children_enlarges_the_costliest():
    for share in (0.0, 0.4, 1.0):
        grown, births = enlarging(upward=share)
        assert abs(len(grown) / len(births) - share) < 0.2
        assert {type(birth.edit) for birth in grown} <= {SplitUnits, SplitLayer}
        assert [birth for birth in births if birth.is_enlarged] == grown
        assert all(birth.predicted_loss_change is None and not birth.rivals for birth in grown)
    flops = sorted(count_flops(birth.genome) / count_flops(small_founder()) for birth in grown)
    assert flops[0] > 1.2
    assert flops[len(flops) // 2] > 1.5


def test_nobody_is_enlarged_beyond_the_ceiling():
    founder = count_flops(small_founder())
    assert not enlarging(1.4 * founder, upward=1.0)[0]
    grown, births = enlarging(2.5 * founder, upward=1.0)
    assert grown
    assert all(count_flops(birth.genome) <= 2.5 * founder for birth in births)
    assert all(birth.edit is None for birth in births if birth not in grown)


def test_only_a_front_of_accuracy_and_cost_is_drawn_upward_and_not_by_prunes():
    assert not enlarging(upward=1.0, mutations="prunes")[0]
    assert not enlarging(upward=1.0, objective="accuracy-per-flop")[0]
    assert enlarging(upward=1.0, mutations="growths")[0]

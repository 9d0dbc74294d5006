from collections import Counter
from itertools import pairwise

import pytest

from analysis.ranks import spearman
from evo_topo.saliency import ablation, brute_force, cascade, magnitude, obd_saliency

UNITS = 32
"""Of the trained network."""


@pytest.mark.parametrize(
    ("shortlist", "finalists", "stages"),
    [
        (0.5, 4, {"ablation": 4, "obd": 12, "magnitude": 16}),
        (0.51, 4, {"ablation": 4, "obd": 13, "magnitude": 15}),
        (0.5, 0, {"obd": 16, "magnitude": 16}),
        (0, 16, {"magnitude": 32}),
        (1, 3, {"ablation": 3, "obd": 29}),
        (1, 0, {"obd": 32}),
        (0.25, 99, {"ablation": 8, "magnitude": 24}),
        (1, 99, {"ablation": 32}),
    ],
)
def test_each_unit_is_ranked_once_and_goes_as_far_as_it_was_let(trained, shortlist, finalists, stages):
    ranked = cascade(*trained, shortlist, finalists)
    assert len({(item.group, item.unit) for item in ranked}) == len(ranked) == UNITS
    assert list(Counter(item.stage for item in ranked).items()) == list(stages.items())  # in this order
    for a, b in pairwise(ranked):
        assert a.stage != b.stage or a.value <= b.value


def test_values_are_those_of_the_last_measure(trained):
    model, genome, *data = trained
    norms, predicted = magnitude(model, genome), obd_saliency(*trained, "sampled")
    for group, unit, stage, value in cascade(*trained, 0.5, finalists=5):
        expected = {
            "magnitude": (norms[group] / norms[group].mean())[unit].item(),
            "obd": predicted[group][unit].item(),
            "ablation": ablation(model, genome, {group: [unit]}, *data),
        }
        assert value == pytest.approx(expected[stage], rel=1e-9, abs=1e-12)


def test_the_first_are_those_that_each_measure_likes_least(trained):
    by_stage = [cascade(*trained, *args) for args in ((0, 0), (0.5, 0), (0.5, 4))]
    sets = [[(item.group, item.unit) for item in ranked] for ranked in by_stage]
    assert set(sets[0][:16]) == set(sets[1][:16])
    assert set(sets[1][:4]) == set(sets[2][:4])
    assert sets[1][4:] == sets[2][4:]


def test_it_ranks_better_than_magnitude_alone(trained):
    measured = brute_force(*trained)

    def correlation(*args):
        ranked = cascade(*trained, *args)
        return spearman(range(UNITS), [measured[item.group][item.unit].item() for item in ranked])

    alone, half, whole = correlation(0, 0), correlation(0.5, 8), correlation(1, 8)
    assert alone < half < whole
    assert whole > 0.9
    assert correlation(1, 99) == pytest.approx(1)

"""Pruning on from the polished, as whole runs have it; how long it may take is in `test_polish_plan`."""

import shutil

import pytest

from evo_topo import PruneUnits, legal_edits
from populations import evolve, load_run
from populations.lineage import Lineage, replay
from populations.progress import Progress
from populations.pruning_on import FAILURES, LEEWAY
from populations.schedule import DRAWN
from tests.populations.test_run import Stop, lineage_of
from tests.small import small_config, small_founder, small_task

FLOOR, GENERATIONS, POLISHED = 0.3, 3, 1024
SETTINGS = {
    "generations": GENERATIONS,
    "founder_examples": 4096,
    "parents": 6,
    "offspring": 6,
    "accuracy_floor": FLOOR,
    "polish_examples": POLISHED,
    "compare": False,
}
BOTH = {"outward": 0.33, "heirs": 2, "seed": 3}


def config_for(run_dir, **changes):
    return small_config(run_dir, **(SETTINGS | changes))


def evolved(run_dir, **changes):
    return evolve(config_for(run_dir, **changes), small_task(), small_founder())


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A run whose front is drawn out."""
    return evolved(tmp_path_factory.mktemp("runs") / "drawn", outward=0.33)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A run with heirs whose front is drawn out, and what it reported."""
    reports: list[Progress] = []
    config = config_for(tmp_path_factory.mktemp("runs") / "both", **BOTH)
    return evolve(config, small_task(), small_founder(), reports.append), reports


def born_in_the_polish(run_dir):
    """Those who only trained on, and those who were pruned, heirs before whoever takes the place."""
    born = [i for i in load_run(run_dir) if i.generation == GENERATIONS + 1]
    return [i for i in born if i.edit is None], [i for i in born if i.edit is not None]


def survivors_of(run_dir):
    with Lineage(run_dir, read_only=True) as lineage:
        return set(lineage.populations()[GENERATIONS + 1])


def test_the_cheapest_is_pruned_on_as_far_as_the_floor(drawn):
    polished, children = born_in_the_polish(drawn.run_dir)
    tip, below = min(polished, key=lambda i: i.flops), 0
    assert len(children) > FAILURES  # somebody passed
    for child in children:
        assert below < FAILURES
        assert (child.parent, child.flops < tip.flops) == (tip.id, True)
        assert below or child.flops <= 0.75 * tip.flops  # in large steps at first
        if child.outcome.accuracy >= FLOOR:
            tip = child
        else:
            below += 1
    assert below == FAILURES or not any(isinstance(e, PruneUnits) for e in legal_edits(tip.genome))
    assert drawn.front[0].flops < min(i.flops for i in polished)
    individuals = load_run(drawn.run_dir)
    assert all(replay(individuals, child.id) == child.genome for child in children)


def test_who_is_above_the_floor_survives_and_nobody_below_it(drawn):
    polished, children = born_in_the_polish(drawn.run_dir)
    survivors = survivors_of(drawn.run_dir)
    assert all(i.id in survivors or i.parent in survivors for i in polished)  # whom it harmed is as before
    assert {i.id for i in children if i.outcome.accuracy >= FLOOR} == {i.id for i in children} & survivors
    assert {int(path.stem) for path in (drawn.run_dir / "weights").iterdir()} == survivors


def test_who_draws_the_front_out_trains_for_a_share_of_the_polish(drawn):
    founder = load_run(drawn.run_dir)[0]
    for child in born_in_the_polish(drawn.run_dir)[1]:
        expected = DRAWN * POLISHED * (founder.flops / child.flops) ** 0.5
        assert abs(child.outcome.examples - expected) <= 16  # whole batches of 32


def test_heirs_of_the_costlier_ones_compete_for_their_places(both, tmp_path):
    plain, run = evolved(tmp_path / "run", **(BOTH | {"heirs": 0})).run_dir, both[0].run_dir
    finalists = [i.parent for i in born_in_the_polish(plain)[0]]  # who is polished without any heirs
    individuals = {i.id: i for i in load_run(run)}
    *_, second, first, costliest = (individuals[i] for i in finalists)
    polished, pruned = born_in_the_polish(run)
    heirs = [i for i in pruned if i.id < polished[-1].id]
    [tip] = [i for i in polished if i.parent == costliest.id]
    assert heirs
    for place, successor in zip((first, second), polished[-2:], strict=True):
        heir = next((i for i in heirs if i.parent in (tip.id, tip.parent)), None)
        is_better = heir is not None and heir.outcome.loss < place.outcome.loss
        assert successor.parent == (heir.id if is_better else place.id)
        if heir is not None:
            assert heir.flops <= LEEWAY * place.flops
            expected = 512 * (individuals[0].flops / heir.flops) ** 0.5  # like any child by then
            assert abs(heir.outcome.examples - expected) <= 16
            heirs.remove(heir)
            is_kept = heir.id in survivors_of(run)
            assert not is_kept or (is_better and successor.id not in survivors_of(run))
        tip = successor
    assert not heirs
    assert len(polished) == len(finalists)


def test_progress_counts_who_is_pruned_on(both):
    polish = [r for r in both[1] if r.phase == "polishing the survivors"]
    assert all(r.children_done <= r.children for r in polish)
    assert polish[-1].children_done == polish[-1].children
    assert all(r.remaining is None or r.remaining >= 0 for r in both[1])


@pytest.mark.slow
def test_neither_workers_nor_stops_change_who_is_bred(both, tmp_path):
    expected = both[0]
    evolved(tmp_path / "one", workers=1, **BOTH)
    assert lineage_of(tmp_path / "one") == lineage_of(expected.run_dir)
    polished, pruned = born_in_the_polish(expected.run_dir)
    for done in (2, len(polished), len(polished) + len(pruned) - 1):

        def stop(progress: Progress, done: int = done) -> None:
            if (progress.generation, progress.children_done) == (GENERATIONS + 1, done):
                raise Stop

        config = config_for(tmp_path / f"stopped-{done}", **BOTH)
        with pytest.raises(Stop):
            evolve(config, small_task(), small_founder(), stop)
        result = evolve(config, resume=True)
        assert lineage_of(result.run_dir) == lineage_of(expected.run_dir)
        assert result.front == expected.front


def test_a_run_that_was_pruned_on_goes_on(both, tmp_path):
    run_dir = shutil.copytree(both[0].run_dir, tmp_path / "run")
    again = evolve(config_for(run_dir, generations=GENERATIONS + 1, **BOTH), resume=True)
    assert again.logbook.select("generation") == list(range(GENERATIONS + 4))
    assert again.front[0].flops <= both[0].front[0].flops


def test_nobody_is_pruned_on_from_below_the_floor(tmp_path):
    evolved(tmp_path / "run", outward=0.33, accuracy_floor=0.99)
    polished, pruned = born_in_the_polish(tmp_path / "run")
    assert polished
    assert not pruned

import dataclasses
import fcntl
import itertools
import json
import shutil
import sqlite3
import statistics
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from evo_topo import Genome
from evo_topo.phenotype import build
from evo_topo.splits import Split
from evo_topo.task_file import save_task
from populations import evolve, load_run
from populations.births import order_for
from populations.config import ConfigError
from populations.dispatch import EvolutionError
from populations.founders import conv_net
from populations.hurdles import Outlook, hurdle_for, lowest_losses
from populations.individual import Individual
from populations.lineage import Lineage, replay
from populations.progress import Progress
from populations.records import LineageError
from populations.reference import REFERENCE_ID
from populations.run import free_folder, load_config
from populations.testing import accuracies_on_test
from tests import faults
from tests.small import small_config, small_founder, small_task


def lineage_of(run_dir: Path) -> list[tuple[object, ...]]:
    """Everything of a lineage but times."""
    with sqlite3.connect(run_dir / "lineage.db") as db:
        rows = db.execute(
            "SELECT id, parent, generation, edit, genome, predicted_loss_change, promised_loss_change, "
            "status, reason, halfway_loss, inherited_loss, refit_loss, "
            "loss, correct, examples, weights_sha256, prices FROM individual ORDER BY id"
        ).fetchall()
        return [*rows, *db.execute("SELECT * FROM population ORDER BY generation, id").fetchall()]


class Stop(Exception):
    """Stands for Ctrl-C."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of three generations with two workers, and what it reported."""
    run_dir = tmp_path_factory.mktemp("runs") / "two"
    reports: list[Progress] = []
    config = small_config(run_dir, generations=3)
    return evolve(config, small_task(), small_founder(), reports.append), reports


def test_the_run_folder_holds_the_front(finished):
    result, _ = finished
    front = json.loads((result.run_dir / "front.json").read_text())
    assert [list(entry) for entry in front] == [
        ["id", "accuracy", "test_accuracy", "macs", "flops", "params", "genome"]
    ] * len(front)
    flops = [entry["flops"] for entry in front]
    accuracies = [entry["accuracy"] for entry in front]
    assert flops == sorted(flops)
    assert accuracies == sorted(accuracies)
    stored = {individual.id: individual for individual in load_run(result.run_dir)}
    for entry in front:
        genome = Genome.from_json(json.dumps(entry["genome"]))
        assert genome == stored[entry["id"]].genome
        assert entry["accuracy"] == stored[entry["id"]].outcome.accuracy
        assert 0 < entry["test_accuracy"] <= 1


def test_replaying_the_edits_gives_every_stored_genome(finished):
    individuals = load_run(finished[0].run_dir)
    assert len([i for i in individuals if i.generation <= 3]) == 1 + 3 * 4
    assert all(replay(individuals, i.id) == i.genome for i in individuals)
    kinds = {type(i.edit).__name__ for i in individuals[1:]}
    assert {"NoneType", "PruneUnits"} <= kinds


def test_those_are_priced_who_could_be_bred_from(finished):
    run_dir = finished[0].run_dir
    with Lineage(run_dir, read_only=True) as lineage:
        sources = [ids for generation, ids in lineage.populations().items() if generation < 2]
    individuals = load_run(run_dir)
    priced = {i.id for i in individuals if i.outcome.prices is not None}
    assert priced == set().union(*sources)
    assert priced >= {i.parent for i in individuals if i.edit is not None}


def test_training_is_accounted_along_the_line(finished):
    individuals = {i.id: i for i in load_run(finished[0].run_dir)}
    for child in individuals.values():
        if child.parent is not None:
            assert child.inherited_examples == individuals[child.parent].total_examples
            ordered = 256 if child.generation <= 2 else 512  # twice as many after two generations; the polish
            scaled = ordered * max(1.0, individuals[0].flops / child.flops) ** 0.5  # cheap ones train longer
            assert abs(child.outcome.examples - scaled) <= 16  # whole batches of 32
            assert child.total_examples == child.inherited_examples + child.outcome.examples
    front = finished[0].front
    assert finished[0].founder_examples >= max(individuals[e.id].total_examples for e in front)
    polished = max(i.total_examples for i in individuals.values() if i.generation == 4)
    assert abs(finished[0].founder_examples - polished) <= 32  # whole batches


def test_only_survivors_keep_weights(finished):
    run_dir = finished[0].run_dir
    with Lineage(run_dir, read_only=True) as lineage:
        survivors = lineage.populations()[4]
    assert sorted(int(path.stem) for path in (run_dir / "weights").iterdir()) == survivors
    assert len(survivors) <= 4


def test_whoever_is_polished_stays(finished):
    with Lineage(finished[0].run_dir, read_only=True) as lineage:
        polished = {i.id for i in lineage.individuals() if i.generation == 4}
        assert polished <= set(lineage.populations()[4])


def test_progress_counts_up_to_the_end(finished):
    reports = finished[1]
    evolving = [r for r in reports if r.phase == "evolving"]
    done = [4 * (r.generation - 1) + r.children_done for r in evolving]  # generations overlap
    assert done == sorted(done)
    assert {r.generation for r in evolving} == {1, 2, 3}
    assert {r.children for r in evolving} == {4}
    assert [r.elapsed for r in reports] == sorted(r.elapsed for r in reports)
    assert reports[-1].phase == "measuring on the test split"
    assert {r.generations for r in reports} == {3}  # the polish comes on top
    assert reports[-1].remaining == 0
    assert finished[0].logbook.select("generation") == [0, 1, 2, 3, 4]


def test_one_worker_gives_the_same_lineage(finished, tmp_path):
    evolve(small_config(tmp_path / "one", generations=3, workers=1), small_task(), small_founder())
    assert lineage_of(tmp_path / "one") == lineage_of(finished[0].run_dir)


@pytest.mark.parametrize(("offspring", "ahead"), [(1, 3), (4, 0), (3, 8)])
def test_children_are_bred_from_the_population_that_their_number_names(tmp_path, offspring, ahead):
    config = small_config(
        tmp_path, generations=8 // offspring, offspring=offspring, ahead=ahead, polish_examples=0
    )
    evolve(config, small_task(), small_founder())
    with Lineage(config.run_dir, read_only=True) as lineage:
        individuals, populations = lineage.individuals(), lineage.populations()
    for child in individuals[1:]:
        known = [g for g in populations if g * offspring <= max(0, child.id - 1 - ahead)]
        assert child.parent in populations[max(g for g in known if g < child.generation)]


def test_a_resumed_run_has_as_many_ahead_and_heirs_as_it_was_begun_with(finished):
    config = small_config(finished[0].run_dir, generations=3, workers=9, ahead=None, heirs=None)
    evolve(config, small_task(), resume=True)
    stored = load_config(finished[0].run_dir)
    assert (stored.ahead, stored.heirs) == (6, 0)


@pytest.mark.parametrize(
    ("phase", "done"), [("training the founder", 0), ("evolving", 3), ("polishing the survivors", 1)]
)
def test_a_stopped_run_resumes_to_the_same_end(finished, tmp_path, phase, done):
    config = small_config(tmp_path / "stopped", generations=3)

    def stop(progress: Progress) -> None:
        if (progress.phase, progress.children_done) == (phase, done):
            raise Stop

    with pytest.raises(Stop):
        evolve(config, small_task(), small_founder(), stop)
    result = evolve(config, resume=True)  # its founder and data lie in the folder
    assert lineage_of(result.run_dir) == lineage_of(finished[0].run_dir)
    expected = finished[0]
    assert result.front == expected.front
    assert result.founder == expected.founder
    assert (result.run_dir / "data.safetensors").exists()  # for nobody could load them again


def test_resuming_a_finished_run_reads_the_test_split_no_second_time(finished, monkeypatch):
    monkeypatch.setattr("populations.results.accuracies_on_test", None)
    result = finished[0]
    config = small_config(result.run_dir, generations=3)
    again = evolve(config, resume=True)
    assert again.front == result.front
    assert again.founder_examples == result.founder_examples


def test_a_finished_run_goes_on(tmp_path):
    config = small_config(tmp_path / "run", generations=1)
    first = evolve(config, small_task(), small_founder())
    longer = dataclasses.replace(config, generations=2)

    def stop(progress: Progress) -> None:
        if progress.children_done:
            assert not (config.run_dir / "front.json").exists()  # it is no longer what the run ends with
            assert (progress.generation, progress.generations) == (3, 3)  # the polish was one, too
            raise Stop

    with pytest.raises(Stop):
        evolve(longer, resume=True, report=stop)
    again = evolve(longer, resume=True)
    assert again.logbook.select("generation") == [0, 1, 2, 3, 4]
    assert len(load_run(config.run_dir)) >= len(first.front) + 8
    alone = evolve(dataclasses.replace(longer, compare=False), resume=True)
    assert (alone.front, alone.founder) == (again.front, None)


def test_the_data_of_a_preset_do_not_stay(tmp_path):
    result = evolve(small_config(tmp_path / "run", generations=1, compare=False), founder=small_founder())
    assert not (result.run_dir / "data.safetensors").exists()
    assert not json.loads((result.run_dir / "task.json").read_text())["is_own"]


def test_a_second_driver_changes_nothing(finished):
    run_dir = finished[0].run_dir
    before = (run_dir / "config.json").read_text()
    with open(run_dir / "driver.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another process is evolving"):
            evolve(small_config(run_dir, generations=50), resume=True)
    assert (run_dir / "config.json").read_text() == before


def test_folders_are_numbered_and_each_is_taken_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert [free_folder("digits").name for _ in range(2)] == ["digits-001", "digits-002"]
    shutil.rmtree("runs")
    Path("runs").symlink_to("no/such/disk")
    with pytest.raises(ConfigError, match="expected a folder, got runs"):
        free_folder("digits")


def test_a_start_that_is_refused_leaves_no_run(tmp_path):
    config = small_config(tmp_path / "run", generations=1, compare=False)
    with pytest.raises(ConfigError, match="founder: expected"):
        evolve(config, small_task(), conv_net((3, 8, 8), 10, (4,), (1,)))
    assert not (tmp_path / "run").exists()
    assert evolve(config, small_task(), small_founder()).front


def test_own_data_that_are_gone_are_not_replaced(tmp_path):
    config = small_config(tmp_path / "run", generations=1, compare=False)
    evolve(config, small_task(), small_founder())
    data, longer = tmp_path / "run" / "data.safetensors", dataclasses.replace(config, generations=2)
    data.unlink()
    with pytest.raises(LineageError, match="resume with the same data"):
        evolve(longer, resume=True)
    other = dataclasses.replace(small_task(), mean=small_task().mean + 1)
    with pytest.raises(LineageError, match="the data that the run was begun with"):
        evolve(longer, other, resume=True)
    assert not data.exists()
    assert evolve(longer, small_task(), resume=True).front
    assert data.exists()


def test_a_run_on_the_data_of_its_preset_takes_no_others(tmp_path):
    config = small_config(tmp_path / "run", generations=1, compare=False)
    evolve(config, founder=small_founder())
    with pytest.raises(ConfigError, match="task: the run is on the data of its preset"):
        evolve(config, small_task(), resume=True)
    assert not (tmp_path / "run" / "data.safetensors").exists()
    (tmp_path / "run" / "task.json").unlink()
    with pytest.raises(LineageError, match=r"task\.json cannot be read"):
        evolve(config, resume=True)


@pytest.mark.parametrize("name", ["config.json", "lineage.db"])
def test_a_folder_with_part_of_a_run_is_none_to_begin_in(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="holds a run already"):
        evolve(small_config(tmp_path), small_task(), small_founder())
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".lock"] == [name]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("front.json", "[]"),
        ("front.json", '[{"id": "x"}]'),
        ("front.json", "[" * 10_000),
        ("founder.json", "null"),
    ],
)
def test_damaged_results_are_named(finished, tmp_path, name, text):
    run_dir = tmp_path / "copy"
    shutil.copytree(finished[0].run_dir, run_dir)
    (run_dir / name).write_text(text)
    with pytest.raises(LineageError, match=f"{name} is damaged"):
        evolve(small_config(run_dir, generations=3), resume=True)


def test_failing_children_are_recorded_and_the_run_goes_on(tmp_path, monkeypatch):
    def order(birth, *arguments, **options):
        made = order_for(birth, *arguments, **options)
        wild = dataclasses.replace(made.recipe, learning_rate=1e6)
        return msgspec.structs.replace(made, recipe=wild) if birth.id == 2 else made

    monkeypatch.setattr("populations.dispatch.order_for", order)
    reports: list[Progress] = []
    result = evolve(small_config(tmp_path, generations=2), small_task(), small_founder(), reports.append)
    with Lineage(tmp_path, read_only=True) as lineage:
        everyone, populations = lineage.individuals(), lineage.populations()
    assert everyone[2].outcome.status == "diverged"
    assert "learning rate" in everyone[2].outcome.reason
    assert reports[-1].failed >= 1
    assert 2 not in {i for ids in populations.values() for i in ids} | {i.parent for i in everyone}
    assert result.front


def test_the_test_split_decides_nothing_and_is_read_once(finished, tmp_path, monkeypatch):
    task, asked = small_task(), []
    test = Split(task.test.inputs.flip(0), (task.test.targets.flip(0) + 1) % 10)

    def counted(networks, *rest):
        asked.append([network.id for network in networks])
        return accuracies_on_test(networks, *rest)

    monkeypatch.setattr("populations.results.accuracies_on_test", counted)
    config = small_config(tmp_path / "r", generations=3)
    result = evolve(config, dataclasses.replace(task, test=test), small_founder())
    assert lineage_of(result.run_dir) == lineage_of(finished[0].run_dir)
    assert asked == [[*(entry.id for entry in result.front), REFERENCE_ID]]
    assert [e.test_accuracy for e in result.front] != [e.test_accuracy for e in finished[0].front]


def test_a_generation_that_time_cuts_short_is_selected_upon(tmp_path, monkeypatch):
    answers = itertools.chain([True] * 6, itertools.repeat(False))
    monkeypatch.setattr("populations.schedule.Schedule.has_time", lambda *_: next(answers))
    result = evolve(small_config(tmp_path / "r", generations=3), small_task(), small_founder())
    with Lineage(result.run_dir, read_only=True) as lineage:
        born = Counter(individual.generation for individual in lineage.individuals())
        assert (born[1], born[2]) == (4, 2)
        assert list(lineage.populations()) == [0, 1, 2, 3]  # the last is the polish
    assert result.front


def test_weights_that_cannot_be_written_stop_the_run_which_can_go_on(finished, tmp_path):
    blocked = tmp_path / "r" / "weights" / "3.safetensors"
    blocked.mkdir(parents=True)  # no file can take its place, whoever writes
    config = small_config(tmp_path / "r", generations=3)
    with pytest.raises(OSError, match=r"3\.safetensors"):
        evolve(config, small_task(), small_founder())
    blocked.rmdir()
    result = evolve(config, resume=True)
    assert lineage_of(result.run_dir) == lineage_of(finished[0].run_dir)


def test_a_worker_that_dies_while_the_test_split_is_read(tmp_path, monkeypatch):
    config = small_config(tmp_path / "r", generations=1, compare=False)
    with monkeypatch.context() as patch:
        patch.setattr("populations.testing.measure_on_test", faults.dies_when_measuring)
        with pytest.raises(EvolutionError, match="while the test split was read"):
            evolve(config, small_task(), small_founder())
    assert evolve(config, resume=True).front


def hurdle_of(child: Individual, everyone: list[Individual], populations: dict[int, list[int]], source: int):
    """The hurdle that follows from what was known when a child was bred, of those that trained as long."""
    first = 1 if child.generation <= 4 else 5
    known = [i for i in everyone if first <= i.generation <= source and i.edit is not None and i.is_alive]
    outlook = Outlook.fit((i.outcome.halfway_loss, i.outcome.loss) for i in known)
    options = [screened.flops for screened in child.outcome.screened] or [child.flops]
    return hurdle_for(options, lowest_losses(everyone[i] for i in populations[source]), outlook)


@pytest.mark.slow
def test_hopeless_children_are_stopped_also_in_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setattr("populations.hurdles.FEWEST", 3)  # so that few children suffice,
    monkeypatch.setattr("populations.hurdles.LUCK", 0.0)  # and half of the hopeless are stopped
    reports: list[Progress] = []
    settings = {
        "generations": 5,
        "train_on": 0.1,
        "ahead": 4,
        "polish_examples": 256,
        "doubling": 4,
        "seed": 10,
    }
    evolve(small_config(tmp_path / "a", **settings), small_task(), small_founder(), reports.append)
    with Lineage(tmp_path / "a", read_only=True) as lineage:
        everyone, populations = lineage.individuals(), lineage.populations()
    stopped = [i for i in everyone if i.outcome.status == "stopped"]
    assert stopped
    diverged = [i for i in everyone if i.outcome.status == "diverged"]  # as one or other does, by processor
    assert (reports[-1].stopped, reports[-1].failed) == (len(stopped), len(diverged))
    for child in [i for i in everyone[1:] if i not in diverged]:
        source = max(0, (child.id - 1) // 4 - 1)  # all but the 4 latest children are judged by then
        hurdle = None
        if child.edit is not None and child.generation <= 5:
            hurdle = hurdle_of(child, everyone, populations, source)
        too_high = hurdle is not None and child.outcome.halfway_loss > hurdle
        assert child.outcome.status == ("stopped" if too_high else "ok")
    ids = {i.id for i in stopped}
    assert not ids & {i.parent for i in everyone}
    assert not ids & {i for members in populations.values() for i in members}
    assert all(replay(everyone, i) == everyone[i].genome for i in ids)

    def stop(progress: Progress) -> None:
        if progress.generation == 4:
            raise Stop

    config = small_config(tmp_path / "b", **settings, workers=1)
    with pytest.raises(Stop):
        evolve(config, small_task(), small_founder(), stop)
    evolve(config, resume=True)
    assert lineage_of(tmp_path / "b") == lineage_of(tmp_path / "a")


def test_the_ratio_can_be_the_objective(tmp_path):
    config = small_config(tmp_path / "ratio", objective="accuracy-per-flop", generations=1, parents=2)
    evolve(config, small_task(), small_founder())
    with Lineage(config.run_dir, read_only=True) as lineage:
        survivors = lineage.populations()[1]
        able = [i for i in lineage.individuals() if i.generation <= 1 and i.is_alive]
    ratios = {i.id: i.outcome.accuracy / i.flops for i in able}
    assert all(ratios[survivor] >= statistics.median(ratios.values()) for survivor in survivors)


def test_time_can_be_the_limit(tmp_path):
    config = small_config(tmp_path / "minutes", generations=None, minutes=0.001)
    result = evolve(config, small_task(), small_founder())
    assert result.logbook.select("generation") == [0, 1]  # the founder and the polish
    assert result.front


def test_bad_requests_are_refused(finished, tmp_path):
    run_dir = finished[0].run_dir
    with pytest.raises(ConfigError, match="holds a run already"):
        evolve(small_config(run_dir), small_task(), small_founder())
    with pytest.raises(ConfigError, match=r"no config\.json"):
        evolve(small_config(tmp_path), resume=True)
    with pytest.raises(ConfigError, match="seed"):
        evolve(small_config(run_dir, generations=3, seed=5), resume=True)
    with pytest.raises(ConfigError, match="founder: expected a network from"):
        evolve(small_config(tmp_path / "x"), small_task(), conv_net((3, 8, 8), 10, (4,), (1,)))
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be written"):
        evolve(small_config(tmp_path / "file" / "run"), small_task(), small_founder())


def test_a_run_without_comparison_trains_no_founder_for_it(tmp_path, monkeypatch):
    monkeypatch.setattr("populations.results._reference", None)
    config = small_config(tmp_path, generations=1, compare=False)
    result = evolve(config, small_task(), small_founder())
    assert (result.founder, result.founder_examples) == (None, 0)
    assert not (tmp_path / "founder.json").exists()
    again = evolve(config, resume=True)
    assert (again.front, again.founder) == (result.front, None)


def test_a_founder_that_cannot_be_trained_is_an_error(tmp_path):
    recipe = dataclasses.replace(small_config().recipe, learning_rate=1e6)
    with pytest.raises(EvolutionError, match="learning rate"):
        evolve(small_config(tmp_path / "x", recipe=recipe), small_task(), small_founder())


def test_without_inheritance_children_start_afresh(tmp_path):
    config = small_config(tmp_path / "run", inherit=False, train_on=0.0)
    result = evolve(config, small_task(), small_founder())
    everyone = load_run(result.run_dir)
    assert [i.outcome.status for i in everyone] == ["ok"] * len(everyone)
    assert any(i.edit is not None for i in everyone)
    assert {i.outcome.inherited_loss for i in everyone} == {None}
    assert {i.total_examples - i.outcome.examples for i in everyone} == {0}
    assert all(replay(everyone, i.id) == i.genome for i in everyone)


def test_weights_to_start_from_need_inheritance(tmp_path):
    with pytest.raises(ConfigError, match="inherit"):
        evolve(small_config(tmp_path / "run", inherit=False), small_task(), small_founder(), weights={})
    assert not (tmp_path / "run").exists()


@pytest.mark.gpu
def test_children_share_a_gpu(tmp_path):
    config = small_config(tmp_path / "run", devices="cuda:0,cuda:0", workers=None, polish_examples=2048)
    result = evolve(config, small_task(), small_founder())
    individuals = load_run(result.run_dir)
    assert {i.outcome.status for i in individuals} <= {"ok", "stopped"}
    assert {i.outcome.device for i in individuals} == {"cuda:0"}
    bred_from = {i.parent for i in individuals if i.edit is not None}
    assert all(i.outcome.prices for i in individuals if i.id in bred_from)
    assert not any(i.outcome.reason for i in individuals if i.outcome.status == "ok")
    assert result.front[-1].test_accuracy > 0.5


def stopped_in(run_dir, phase, done, **changes):
    """A run that is stopped once so many children of a phase are done."""

    def stop(progress: Progress) -> None:
        if (progress.phase, progress.children_done) == (phase, done):
            raise Stop

    config = small_config(run_dir, **changes)
    with pytest.raises(Stop):
        evolve(config, small_task(), small_founder(), stop)
    return config


def test_a_run_may_end_earlier_than_it_was_bred_for(tmp_path):
    config = stopped_in(
        tmp_path / "run", "evolving", 3, generations=3
    )  # children of the next generation are there
    result = evolve(dataclasses.replace(config, generations=1), resume=True)
    with Lineage(result.run_dir, read_only=True) as lineage:
        assert list(lineage.populations()) in ([0, 1, 2], [0, 1])
        assert all(
            i.edit is None for i in lineage.individuals() if i.generation == max(lineage.populations())
        )
    assert result.front


@pytest.mark.slow
def test_a_polish_is_finished_as_it_was_begun(finished, tmp_path):
    config = stopped_in(tmp_path / "run", "polishing the survivors", 1, generations=3)
    with pytest.raises(ConfigError, match=r"compare: .* finish that first"):
        evolve(dataclasses.replace(config, compare=False), resume=True)
    longer = evolve(dataclasses.replace(config, generations=4), resume=True)
    assert longer.logbook.select("generation") == [0, 1, 2, 3, 4, 5, 6]  # polishes are the 4th and 6th
    with Lineage(config.run_dir, read_only=True) as lineage:
        assert lineage.polished() == {4, 6}
        polished = [i.outcome.weights_sha256 for i in lineage.individuals() if i.generation == 4]
    with Lineage(finished[0].run_dir, read_only=True) as lineage:
        assert polished == [i.outcome.weights_sha256 for i in lineage.individuals() if i.generation == 4]


def test_weights_that_do_not_fit_the_founder_are_refused_at_once(tmp_path):
    weights = {name: value[:1] for name, value in build(small_founder()).state_dict().items() if value.ndim}
    with pytest.raises(ConfigError, match="weights: expected"):
        evolve(small_config(tmp_path / "run"), small_task(), small_founder(), weights=weights)
    assert not (tmp_path / "run").exists()


def test_data_that_lie_in_the_folder_are_the_users_own(tmp_path):
    save_task(small_task(), tmp_path / "data.safetensors")
    config = small_config(tmp_path, generations=1, compare=False)
    evolve(config, founder=small_founder())
    assert (tmp_path / "data.safetensors").exists()
    assert evolve(dataclasses.replace(config, generations=2), resume=True).front


def test_a_second_run_in_the_same_folder_has_its_own_data(tmp_path):
    config = small_config(tmp_path / "run", generations=1, compare=False)
    first = evolve(config, small_task(), small_founder())
    shutil.rmtree(tmp_path / "run")  # the workers live on
    task = small_task()
    test = Split(task.test.inputs, (task.test.targets + 1) % 10)
    second = evolve(config, dataclasses.replace(task, test=test), small_founder())
    assert [e.test_accuracy for e in second.front] != [e.test_accuracy for e in first.front]

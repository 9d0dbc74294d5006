from contextlib import closing

import pytest
from msgspec.structs import replace

from populations.founders import conv_net
from populations.generations import Generations
from populations.individual import Individual, Outcome
from populations.lineage import Lineage
from populations.memory import Memory
from populations.orders import weights_path
from tests.small import small_config, small_founder

COUNT = 100


def individual(number, generation, width, right):
    """One that gets so many of the validation examples right; the wider, the dearer."""
    parent = 0 if number else None
    genome = conv_net((1, 8, 8), 10, (width, width), (1, 2)) if number else small_founder()
    outcome = Outcome("ok", correct=f"{(1 << right) - 1:x}", accuracy=right / COUNT, loss=1 - right / COUNT)
    return Individual(number, parent, generation, None, genome, None, None, 0, 0, 0.0, outcome)


@pytest.fixture
def run(tmp_path):
    """A founder and its three children, with weights; nobody has selected among them yet."""
    family = [individual(0, 0, 0, 60), *(individual(i, 1, 2 * i, 60 + 10 * i) for i in (1, 2, 3))]
    weights_path(tmp_path, 0).parent.mkdir()
    with closing(Lineage(tmp_path)) as lineage:
        for member in family:
            lineage.add(member)
            weights_path(tmp_path, member.id).touch()
        lineage.set_population(0, [0], 1.0)
        yield tmp_path, lineage


def finished(run, **changes):
    folder, lineage = run
    memory = Memory(lineage.individuals())
    config = small_config(folder, parents=2, ahead=0, **changes)
    return Generations(config, small_founder(), COUNT, lineage, memory), memory


def weights_of(run):
    return {int(path.stem) for path in (run[0] / "weights").iterdir()}


def test_a_run_that_goes_on_finds_its_last_generation(run):
    generations, _ = finished(run)
    assert generations.last == 0
    assert [member.id for member in generations.population] == [0]
    assert [entry["generation"] for entry in generations.logbook] == [0]


def test_survivors_are_stored_and_the_dead_lose_their_weights(run):
    generations, memory = finished(run)
    generations.select(1, [1, 2, 3], 2.0)
    assert generations.last == 1
    assert len(generations.survivors[1]) == 2
    assert run[1].populations()[1] == generations.survivors[1]
    assert weights_of(run) == {0, *generations.survivors[1]}  # its source may still be bred from
    assert set(memory.individuals) == weights_of(run)


def test_once_some_are_polished_the_front_is_theirs(run):
    generations, memory = finished(run)
    generations.select(1, [1, 2, 3], 2.0)
    assert {member.generation for member in generations.front} == {1}
    polished = individual(4, 2, 8, 58)  # worse than those who were not
    run[1].add(polished)
    memory.add(polished, memory.individuals[0])
    weights_path(run[0], 4).touch()
    generations.select(2, [4], 3.0, is_polish=True)
    assert [member.id for member in generations.front] == [4]
    assert len(generations.survivors[2]) == 2
    assert run[1].polished() == {2}
    assert weights_of(run) == set(generations.survivors[2])


@pytest.mark.parametrize("outcome", [Outcome("diverged"), individual(4, 2, 4, 50).outcome])
def test_whose_polish_failed_or_did_harm_is_on_the_front_as_it_was(run, outcome):
    generations, memory = finished(run)
    generations.select(1, [1, 2, 3], 2.0)
    cheap, dear = generations.population
    lost = replace(individual(4, 2, 4, 10), parent=cheap.id, outcome=outcome)
    polished = replace(individual(5, 2, 6, 95), parent=dear.id)
    for child in (lost, polished):
        run[1].add(child)
        memory.add(child, memory.individuals[child.parent])
        weights_path(run[0], child.id).touch()
    generations.select(2, [4, 5], 3.0, is_polish=True)
    assert [member.id for member in generations.front] == [cheap.id, 5]
    assert run[1].unpolished() == {cheap.id}
    assert weights_of(run) == {cheap.id, 5}
    assert [member.id for member in finished(run)[0].front] == [cheap.id, 5]


@pytest.mark.parametrize("compare", [True, False])
def test_the_founder_is_not_polished_where_it_has_a_test_of_its_own(run, compare):
    generations, memory = finished(run, compare=compare)
    memory.individuals[0] = individual(0, 0, 0, 99)
    generations.finish(1, [memory.individuals[0], memory.individuals[3]], 2.0)
    ids = {member.id for member in generations.finalists.promising}
    assert ids == ({3} if compare else {0, 3})

import random
from collections import Counter
from contextlib import contextmanager
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.benchmarks.genome_ops import residual_chain
from evo_topo import count_flops
from evo_topo import genome as genome_module
from evo_topo.edits import (
    KINDS,
    SITE_KINDS,
    STRUCTURAL_KINDS,
    Binarise,
    Debinarise,
    EditError,
    Factorise,
    GrowConnections,
    PruneConnections,
    PruneLayer,
    PruneUnits,
    SplitLayer,
    SplitUnits,
    Trade,
    edit_from_json,
    legal_edits,
    random_edit,
)
from evo_topo.ops import is_plain
from evo_topo.units import unit_table
from tests.strategies import EXAMPLES, Sketch, genomes, resnet, versatile


@given(genome=genomes())
def test_legal_edits_apply_and_differ(genome):
    edits = list(legal_edits(genome, STRUCTURAL_KINDS))
    assert len(set(edits)) == len(edits)
    assert all(edit.apply(genome) != genome for edit in edits)


@pytest.mark.parametrize("name", EXAMPLES)
def test_legal_edits_are_all_that_apply(name):
    genome = EXAMPLES[name]()
    sites = [
        kind(((group.name, (unit,)),))
        for group in unit_table(genome).groups.values()
        for unit in range(group.width)
        for kind in (PruneUnits, SplitUnits)
    ]
    whole = (PruneLayer, PruneConnections, GrowConnections, Binarise, Debinarise)
    sites += [kind(node.name) for node in genome.nodes for kind in whole]
    legal = legal_edits(genome, (PruneUnits, SplitUnits, *whole))
    assert set(legal) == {edit for edit in sites if applies(edit, genome)}


@given(genome=st.one_of(genomes(), st.sampled_from(list(EXAMPLES)).map(lambda name: EXAMPLES[name]())))
def test_what_is_found_legal_nearby_is_what_applies(genome):
    for kind in SITE_KINDS:
        for edit in kind.candidates(genome):
            saves = kind is not Factorise or count_flops_after(edit, genome) < count_flops(genome)
            assert edit.is_legal(genome) == (applies(edit, genome) and saves), edit


def test_listing_looks_at_the_neighbourhood_of_each_site():
    """Validated nodes grow with the network, not with its square."""
    looked = {}
    for nodes in (100, 400):
        genome = residual_chain(nodes)
        with count_calls(genome_module, "infer_shape") as calls:
            assert sum(1 for _ in legal_edits(genome)) > nodes
        looked[nodes] = len(calls)
    assert looked[400] <= 5 * looked[100] + 5


def count_flops_after(edit, genome):
    return count_flops(edit.apply(genome)) if applies(edit, genome) else 0


@contextmanager
def count_calls(module, name):
    calls, function = [], getattr(module, name)

    def counted(*args):
        calls.append(args[0])
        return function(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, name, counted)
        yield calls


def applies(edit, genome):
    try:
        return bool(edit.apply(genome))
    except EditError:
        return False


def test_legal_edits_offer_every_unit_and_layer():
    genome = resnet((4, 6), 1, 8)
    edits = list(legal_edits(genome))
    widths = {name: group.width for name, group in unit_table(genome).groups.items()}
    for kind in (PruneUnits, SplitUnits):
        assert Counter(e.units[0][0] for e in edits if isinstance(e, kind)) == widths
    relus = [n.name for n in genome.nodes if n.name.startswith("activation")]
    assert [e.after for e in edits if isinstance(e, SplitLayer)] == relus


def test_legal_edits_are_lazy(monkeypatch):
    def give_up(*_):
        raise AssertionError("looked further than asked")

    monkeypatch.setattr(PruneLayer, "legal", give_up)
    genome = EXAMPLES["perceptron"]()
    assert len(list(islice(legal_edits(genome), 14))) == 14
    with pytest.raises(AssertionError, match="further"):
        list(legal_edits(genome))


@given(genome=genomes(), seed=st.integers(0, 99))
def test_by_default_dense_real_networks_stay_so(genome, seed):
    edits = list(legal_edits(genome, STRUCTURAL_KINDS))
    assert [edit for edit in edits if type(edit) is not Trade] == list(legal_edits(genome))
    kinds = {type(edit) for edit in legal_edits(genome, KINDS)}
    weighted = {PruneConnections, GrowConnections, Binarise, Debinarise}
    assert {type(edit) for edit in edits} == kinds - weighted
    if edits:
        edits.append(random_edit(genome, random.Random(seed)))
    for edit in edits:
        assert all(is_plain(node.op) for node in edit.apply(genome).nodes)


@given(genome=genomes())
def test_kinds_of_legal_edits_can_be_chosen(genome):
    edits = list(legal_edits(genome, KINDS))
    for kind in KINDS:
        assert list(legal_edits(genome, (kind,))) == [edit for edit in edits if type(edit) is kind]
    kinds = {type(edit) for edit in edits}
    for kind in kinds:
        assert type(random_edit(genome, random.Random(0), (kind,))) is kind


def test_a_fixed_network_has_no_edit():
    net = Sketch(3)
    genome = net.finish(net.linear(net.input, 1))
    assert list(legal_edits(genome)) == []
    with pytest.raises(EditError, match="no edit applies"):
        random_edit(genome, random.Random(0))


@pytest.mark.parametrize("source", [random.Random, np.random.default_rng])
@given(genome=st.one_of(genomes(), st.sampled_from(list(EXAMPLES)).map(lambda name: EXAMPLES[name]())))
def test_random_edits_apply_and_repeat_themselves(source, genome):
    rng, again = source(3), source(3)
    if next(legal_edits(genome), None) is None:
        return
    for _ in range(8):
        edit = random_edit(genome, rng)
        assert edit == random_edit(genome, again)
        assert edit_from_json(edit.to_json()) == edit
        assert edit.apply(genome) != genome


def test_random_edits_are_of_every_kind_and_size():
    genome, rng = versatile(8), random.Random(0)
    kinds = Counter(type(random_edit(genome, rng, KINDS)) for _ in range(800))
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 800 / len(kinds) / 2
    some = (PruneUnits, SplitUnits, PruneConnections, GrowConnections)
    edits = [random_edit(genome, rng, some) for _ in range(800)]
    for kind in (PruneUnits, SplitUnits):
        drawn = [edit.units[0] for edit in edits if isinstance(edit, kind)]
        assert {len(units) for _, units in drawn} == {1, 2, 3, 4}
        groups = [g for g in unit_table(genome).groups.values() if kind is PruneUnits or any(g.splittable)]
        assert {name for name, _ in drawn} == {group.name for group in groups}
        assert {unit for _, units in drawn for unit in units} == set(range(8))
    for kind, layer, most in ((PruneConnections, "conv4", 71), (GrowConnections, "conv7", 63)):
        counts = {edit.count for edit in edits if isinstance(edit, kind) and edit.layer == layer}
        assert 1 <= min(counts) < most / 8
        assert 3 / 8 * most < max(counts) <= 1 + most / 2


GARBAGE = [
    "",
    "null",
    "[]",
    "{}",
    '"prune_layer"',
    '{"edit": "prune_layer"}',
    '{"edit": "prune_layer", "layer": null}',
    '{"edit": "prune_layer", "layer": "conv1", "more": 1}',
    '{"edit": "unheard_of"}',
    '{"edit": "binarise", "layer": 3}',
    '{"edit": "prune_connections", "layer": "conv1", "count": 0}',
    '{"edit": "prune_connections", "layer": "conv1", "criterion": "apoz"}',
    '{"edit": "grow_connections", "layer": "conv1", "count": 1e999}',
    '{"edit": "split_layer", "after": "relu1", "kernel": 99}',
    '{"edit": "split_layer", "after": "relu1", "kernel": NaN}',
    '{"edit": "prune_units", "units": [["conv1", [-1]]]}',
    '{"edit": "prune_units", "units": [["conv1", [1.5]]]}',
    '{"edit": "prune_units", "units": [["conv1"]]}',
    '{"edit": "split_units", "units": [["conv1", [0]]], "share": 0.5}',
    '{"edit": "split_units", "units": [["conv1", [0]]], "share": 1e999}',
    '{"edit": "prune_units", "units": ' + "[" * 100_000,
    b"\xff\xfe",
    '"\ud800"',
]


@pytest.mark.parametrize("text", GARBAGE, ids=lambda text: repr(text[:40]))
def test_garbage_is_no_edit(text):
    with pytest.raises(EditError, match="not an edit"):
        edit_from_json(text)


def test_a_huge_unit_number_is_refused():
    genome = EXAMPLES["perceptron"]()
    edit = edit_from_json(PruneUnits((("linear1", (2**70,)),)).to_json())
    with pytest.raises(EditError, match="distinct, from 0 to 6"):
        edit.apply(genome)

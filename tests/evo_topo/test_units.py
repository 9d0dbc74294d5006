import pytest
from hypothesis import given, settings

from evo_topo.ops import Conv, Linear, Output
from evo_topo.units import mixes_units, unit_table
from tests.reference import find_components, is_fixed
from tests.strategies import EXAMPLES, genomes, resnet


def check_against_reference(genome):
    table, components = unit_table(genome), find_components(genome)
    seen = set()
    for component in components:
        members = {table.members[name][channel] for name, channel in component}
        assert len(members) == 1, component
        (member,) = members
        assert (member is None) == is_fixed(genome, component)
        assert member is None or member not in seen
        seen.add(member)
    units = {(group.name, unit) for group in table.groups.values() for unit in range(group.width)}
    assert seen - {None} == units
    check_makers(genome, table, components)


def check_makers(genome, table, components):
    makers = {node.name for node in genome.nodes if isinstance(node.op, Conv | Linear)}
    order = [node.name for node in genome.nodes]
    linked = [
        {name for name, _ in component if name in makers}
        for component in components
        if not is_fixed(genome, component)
    ]
    groups = []
    for names in linked:
        joined = [group for group in groups if group & names]
        groups = [group for group in groups if not group & names] + [names.union(*joined)]
    assert {min(group, key=order.index): group for group in groups} == {
        name: set(group.makers) for name, group in table.groups.items()
    }
    for group in table.groups.values():
        for maker, channels in group.makers.items():
            assert len(channels) == len(group.splittable) == group.width
            for unit, held in enumerate(channels):
                everywhere = [c for c, m in enumerate(table.members[maker]) if m == (group.name, unit)]
                assert list(held) == everywhere


@settings(max_examples=100)
@given(genome=genomes())
def test_units_agree_with_a_search(genome):
    check_against_reference(genome)


@pytest.mark.parametrize("name", EXAMPLES)
def test_units_of_examples_agree_with_a_search(name):
    check_against_reference(EXAMPLES[name]())


@pytest.mark.parametrize(
    ("name", "widths"),
    [
        ("small_resnet", {"conv1": 4, "conv4": 4, "conv11": 6, "conv14": 6}),
        ("dense", {"conv1": 4, "conv4": 3, "conv8": 3, "conv12": 3}),
        ("squeeze_excitation", {"conv1": 6, "conv4": 12, "conv11": 3}),
        ("concat_added", {"conv1": 5, "conv13": 4}),
        ("concat_swapped", {"conv1": 2, "conv7": 3}),
        ("concat_twice", {"conv1": 3, "conv5": 4, "conv8": 4}),
        ("concat_single", {"conv1": 1, "conv5": 3}),
        ("squares", {"conv1": 3}),
        ("grouped_residual", {"conv1": 3, "conv8": 5, "conv14": 3}),
        ("flat_tied", {"conv1": 3, "conv4": 2}),
        ("flat_unequal", {"conv2": 1}),
        ("partly_fixed", {"conv1": 3}),
    ],
)
def test_tied_groups(name, widths):
    groups = unit_table(EXAMPLES[name]()).groups
    assert {group.name: group.width for group in groups.values()} == widths


def test_group_is_named_after_a_maker_of_its_units():
    groups = unit_table(EXAMPLES["partly_fixed"]()).groups
    for name, group in groups.items():
        assert name == group.name == next(iter(group.makers))
    assert groups["conv1"].makers == {"conv1": ((0,), (1,), (2,)), "conv4": ((2,), (3,), (4,))}


def test_grouped_blocks_leave_together():
    groups = unit_table(EXAMPLES["grouped"]()).groups
    mixed = next(group for group in groups.values() if len(group.makers) > 2)
    assert [len(held) for held in groups["conv1"].makers["conv1"]] == [2, 1, 0, 0]
    assert mixed.width == 4


def test_input_and_classes_are_fixed():
    genome = resnet((4, 6), 1, 8)
    members = unit_table(genome).members
    assert members[genome.nodes[0].name] == [None] * 3
    assert all(members[n.inputs[0]] == [None] * 10 for n in genome.nodes if isinstance(n.op, Output))


def test_mixing_layers():
    genome = EXAMPLES["squeeze_excitation"]()
    kinds = {node.name: mixes_units(node) for node in genome.nodes if isinstance(node.op, Conv)}
    assert [name for name, mixes in kinds.items() if not mixes] == ["conv7"]


def test_table_is_computed_once():
    genome = resnet((4, 6), 1, 8)
    assert unit_table(genome) is unit_table(genome)

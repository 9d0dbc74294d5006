from hypothesis import given

from evo_topo.channels import channel_origins
from evo_topo.units import unit_table
from tests.strategies import EXAMPLES, genomes


@given(genome=genomes())
def test_no_change_keeps_every_channel(genome):
    widths = {name: range(group.width) for name, group in unit_table(genome).groups.items()}
    for unit_map in ({}, widths):
        for name, channels in channel_origins(genome, unit_map).items():
            assert channels == list(range(genome.shapes[name][0]))


def test_copies_stand_behind_their_unit():
    origins = channel_origins(EXAMPLES["flat_tied"](), {"conv1": [0, 1, 1]})
    assert origins["conv1"] == [0, 1, 1]
    assert origins["flatten7"] == [*range(12), *range(6, 12)]
    assert origins["flatten7"] == origins["linear9"] == origins["add10"]

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from evo_topo.edits import GrowKernel, ShrinkKernel
from evo_topo.inheritance import inherit
from tests.reference import randomised
from tests.strategies import Sketch, genome_edits


@given(data=st.data())
def test_shrinking_takes_back_what_growing_added(data):
    genome, edit = data.draw(genome_edits(GrowKernel))
    model = randomised(genome)
    wide, wide_model = edit.apply(genome), inherit(model, genome, edit)
    back = ShrinkKernel(edit.conv)
    kernel, wider = genome.by_name[edit.conv].op.kernel, wide.by_name[edit.conv].op.kernel
    if all(n == m + 2 for n, m in zip(wider, kernel, strict=True)):
        assert back.apply(wide) == genome
        state = inherit(wide_model, wide, back).state_dict()
        assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())


def one_conv(*shape, **settings):
    net = Sketch(*shape)
    return net.end(net.conv(net.input, 3, **settings))


def kernels(genome, kind, times):
    found = []
    for _ in range(times):
        genome = kind("conv1").apply(genome)
        op = genome.by_name["conv1"].op
        found.append((op.kernel, op.padding))
    return found


@pytest.mark.parametrize(
    ("genome", "kind", "expected"),
    [
        (one_conv(2, 9, 9, kernel=5), ShrinkKernel, [((3, 3), (1, 1)), ((1, 1), (0, 0))]),
        (one_conv(2, 9, kernel=5), ShrinkKernel, [((3,), (1,)), ((1,), (0,))]),
        (one_conv(2, 9, 9, kernel=3, dilation=(2, 2), padding=(2, 3)), ShrinkKernel, [((1, 1), (0, 1))]),
        (one_conv(2, 9, 2, kernel=1), GrowKernel, [((3, 3), (1, 1)), ((5, 3), (2, 1)), ((7, 3), (3, 1))]),
        (one_conv(2, 4, kernel=1, stride=(2,)), GrowKernel, [((3,), (1,)), ((5,), (2,)), ((7,), (3,))]),
    ],
)
def test_extents_and_padding_go_together(genome, kind, expected):
    assert kernels(genome, kind, len(expected)) == expected

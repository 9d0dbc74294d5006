import math
from typing import get_args

import msgspec
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from evo_topo.ops import (
    MAX_WIDTH,
    Activation,
    AdaptivePool,
    Add,
    AnyOp,
    Concat,
    Conv,
    Dropout,
    Flatten,
    GlobalPool,
    Input,
    Linear,
    Multiply,
    Norm,
    OpError,
    Output,
    Pad,
    Pool,
    Scale,
    Select,
)

MAP = (6, 5, 4)
SHAPES = [
    (Input((3, 8, 8)), (), (3, 8, 8)),
    (Conv(8, (3, 3)), (MAP,), (8, 3, 2)),
    (Conv(8, (3, 1), stride=(2, 1), padding=(1, 0)), (MAP,), (8, 3, 4)),
    (Conv(4, (3,), dilation=(2,)), ((6, 9),), (4, 5)),
    (Conv(12, (1, 1), groups=6), (MAP,), (12, 5, 4)),
    (Linear(7), ((5,),), (7,)),
    (Norm(), (MAP,), MAP),
    (Activation("gelu"), (MAP,), MAP),
    (Dropout(0.1), ((5,),), (5,)),
    (Pool((2, 2)), (MAP,), (6, 2, 2)),
    (Pool((3,), "avg", (1,), (1,)), ((6, 9),), (6, 9)),
    (Pool((3, 3), "max", (2, 2), ceil_mode=True), ((6, 6, 5),), (6, 3, 2)),
    (Pool((2,), "avg", (2,), (1,), True, False), ((6, 4),), (6, 3)),
    (AdaptivePool((7, 2)), (MAP,), (6, 7, 2)),
    (AdaptivePool((3,), "max"), ((6, 9),), (6, 3)),
    (Pad((1, 0), (2, -1)), (MAP,), (6, 8, 3)),
    (Pad((-2,), (0,), "lowest"), ((6, 9),), (6, 7)),
    (Scale(0.5, 2.0), (MAP,), MAP),
    (Select((5, 0, 0)), (MAP,), (3, 5, 4)),
    (Select((4,)), ((5,),), (1,)),
    (GlobalPool(), (MAP,), (6, 1, 1)),
    (GlobalPool("max"), ((6, 9),), (6, 1)),
    (Flatten(), (MAP,), (120,)),
    (Flatten(), ((5,),), (5,)),
    (Add(), (MAP, MAP, MAP), MAP),
    (Multiply(), ((6, 1, 1), MAP), MAP),
    (Multiply(), ((6,), MAP), MAP),
    (Add(), ((6,), (6, 1, 1)), (6, 1, 1)),
    (Activation("leaky_relu", 0.1), (MAP,), MAP),
    (Concat(), (MAP, (2, 5, 4)), (8, 5, 4)),
    (Output(), ((3,),), (3,)),
]


@pytest.mark.parametrize(("op", "shapes", "expected"), SHAPES)
def test_shapes(op, shapes, expected):
    assert op.infer(shapes) == expected
    assert op.describe()


def test_every_operation_has_a_case():
    assert {type(op) for op, _, _ in SHAPES} == set(get_args(AnyOp))


@pytest.mark.parametrize(
    ("op", "shapes", "message"),
    [
        (Conv(4, (3, 3)), ((6, 9),), "2-D convolution cannot read shape"),
        (Conv(4, (3, 3)), ((6, 2, 9),), "does not fit into extents"),
        (Conv(4, (1, 1), groups=4), (MAP,), "6 input channels are no multiple of groups 4"),
        (Conv(MAX_WIDTH, (31, 31)), (MAP,), "more than 268435456 weights"),
        (Conv(MAX_WIDTH + 1, (1, 1)), (MAP,), "makes 65537 units"),
        (Conv(0, (1, 1)), (MAP,), "makes 0 units"),
        (Linear(4), (MAP,), "flatten it first"),
        (Linear(MAX_WIDTH), ((MAX_WIDTH,),), "more than 268435456 weights"),
        (Linear(-1), ((3,),), "makes -1 units"),
        (Pool((2,)), (MAP,), "1-D pooling cannot read"),
        (Pool((9, 9)), (MAP,), "does not fit into extents"),
        (GlobalPool(), ((5,),), "spatial extents"),
        (AdaptivePool((2,)), (MAP,), "cannot read shape"),
        (AdaptivePool(()), ((5,),), "cannot read shape"),
        (Pad((1,), (1,)), (MAP,), "do not match shape"),
        (Pad((-3, 0), (-2, 0)), (MAP,), "leave nothing"),
        (Pad((-5, 0), (9, 0)), (MAP,), "leave nothing"),
        (Select(()), (MAP,), "selects no channel"),
        (Select((0, 6)), (MAP,), "up to 6 of 6"),
        (Select((-1,)), (MAP,), "selects channels"),
        (Add(), (MAP, (6, 5, 1)), "do not fit together"),
        (Multiply(), (MAP, (3, 1, 1)), "do not fit together"),
        (Add(), ((6, 1), (6, 1, 1)), "do not fit together"),
        (Concat(), (MAP, (6, 4, 5)), "differ beyond their channels"),
        (Concat(), ((6,), (6, 1)), "differ beyond their channels"),
        (Output(), (MAP,), "reads class scores"),
    ],
)
def test_inputs_that_do_not_fit(op, shapes, message):
    with pytest.raises(OpError, match=message):
        op.infer(shapes)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (Conv, {"out_channels": 4, "kernel": ()}, "1 or 2 extents"),
        (Conv, {"out_channels": 4, "kernel": (3, 3), "stride": (2,)}, "does not match the 2 extents"),
        (Conv, {"out_channels": 6, "kernel": (3,), "groups": 4}, "no multiple of groups"),
        (Pool, {"kernel": (2, 2), "padding": (2, 0)}, "more than half of kernel"),
        (Pool, {"kernel": (1, 1, 1)}, "1 or 2 extents"),
        (Activation, {"function": "relu", "slope": 0.1}, "relu has no slope"),
    ],
)
def test_settings_that_contradict_each_other(kind, settings, message):
    with pytest.raises(OpError, match=message):
        kind(**settings)


def test_equal_windows_are_equal_data():
    assert Conv(4, (3, 3)) == Conv(4, (3, 3), (1, 1), (0, 0), (1, 1))
    assert Pool((2, 3), count_include_pad=False) == Pool((2, 3))
    assert Activation("elu", 1) == Activation("elu") != Activation("elu", 0.5)
    assert Pool((2, 3)) == Pool((2, 3), "max", (2, 3), (0, 0)) != Pool((2, 3), stride=(1, 1))


@pytest.mark.parametrize(("op", "shapes", "expected"), SHAPES)
def test_operations_survive_json(op, shapes, expected):
    assert msgspec.json.decode(msgspec.json.encode(op), type=AnyOp) == op


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 2),
    ceil_mode=st.booleans(),
)
def test_pooling_windows_agree_with_torch(size, kernel, stride, padding, ceil_mode):
    padding = min(padding, kernel // 2)
    if size + 2 * padding < kernel:
        return
    op = Pool((kernel,), "max", (stride,), (padding,), ceil_mode)
    module = nn.MaxPool1d(kernel, stride, padding, ceil_mode=ceil_mode)
    assert op.infer(((2, size),)) == module(torch.zeros(1, 2, size)).shape[1:]


@given(
    size=st.integers(1, 12),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 3),
    groups=st.integers(1, 3),
)
def test_windows_agree_with_torch(size, kernel, stride, padding, dilation, groups):
    op = Conv(groups * 2, (kernel,), (stride,), (padding,), (dilation,), groups, True)
    module = nn.Conv1d(groups * 3, groups * 2, kernel, stride, padding, dilation, groups)
    inputs = torch.zeros(1, groups * 3, size)
    if size + 2 * padding < dilation * (kernel - 1) + 1:
        with pytest.raises(OpError, match="does not fit"):
            op.infer((inputs.shape[1:],))
        return
    out = op.infer((tuple(inputs.shape[1:]),))
    assert out == module(inputs).shape[1:]
    assert op.num_params((inputs.shape[1:],), out) == sum(p.numel() for p in module.parameters())
    assert op.num_macs((inputs.shape[1:],), out) == math.prod(out) * module.weight[0].numel()

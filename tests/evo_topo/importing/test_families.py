"""Networks of every convolutional family come in as they are, and every kind of edit applies to them."""

import random
from itertools import islice
from typing import get_args

import pytest
import torch

from evo_topo import count_params, from_module, inherit, legal_edits, random_edit
from evo_topo.edits import AnyEdit, EditError
from tests.children import expected_output
from tests.families import FULL, NARROW, TIMM, extent, full, randomised, timm_net
from tests.reference import counted_flops, relative_error

QUICK = ("resnet", "densenet", "shufflenet_v2")
slow = pytest.mark.slow


def cases(names, quick=()):
    return [pytest.param(name, marks=() if name in quick else slow) for name in names]


def check_same(net, genome, model, inputs):
    with torch.no_grad():
        error = relative_error(model(inputs), net(inputs))
    assert error < (1e-5 if inputs.dtype == torch.float32 else 1e-12)
    assert count_params(genome) == sum(p.numel() for p in net.parameters())
    own, theirs = ({(*p.shape, p.double().sum().item()) for p in m.parameters()} for m in (model, net))
    assert own == theirs


def check_edits(genome, model, inputs, count=6):
    rng = random.Random(0)
    edits = [random_edit(genome, rng) for _ in range(count)]
    for kind in get_args(AnyEdit):  # one at least of each kind that applies
        edits += islice(legal_edits(genome, (kind,)), 1)
    for edit in edits:
        with torch.no_grad():
            got = inherit(model, genome, edit)(inputs)
            expected = expected_output(model, genome, edit, inputs)
        assert relative_error(got, expected) < 1e-9, edit.describe()


@pytest.mark.parametrize("name", cases(NARROW, QUICK))
def test_families_come_in_and_every_edit_applies(name):
    net, size = randomised(NARROW[name]()).double(), extent(name)
    genome, model = from_module(net, (3, size, size))
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    check_same(net, genome, model, inputs)
    check_edits(genome, model, inputs)


@pytest.mark.parametrize("name", cases(FULL, ("resnet18",)))
def test_networks_of_torchvision_come_in_at_full_size(name):
    net, size = randomised(full(name)), 299 if name == "inception_v3" else 224
    genome, model = from_module(net, (3, size, size))
    check_same(net, genome, model, torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1)))
    assert counted_flops(genome, model) == counted_flops(genome, net)


@pytest.mark.parametrize("name", cases(TIMM, ("lcnet_050",)))
def test_networks_of_timm_come_in_and_every_edit_applies(name):
    net, size = randomised(timm_net(name)).double(), extent(name)
    genome, model = from_module(net, (3, size, size))
    inputs = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    check_same(net, genome, model, inputs)
    check_edits(genome, model, inputs)


def test_pruning_many_units_at_once_is_masking_them():
    net = randomised(NARROW["densenet"]()).double()
    genome, model = from_module(net, (3, 32, 32))
    inputs = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    rng = random.Random(1)
    for _ in range(8):
        try:
            edit = random_edit(genome, rng)
        except EditError:
            break
        with torch.no_grad():
            child_model = inherit(model, genome, edit)
            assert relative_error(child_model(inputs), expected_output(model, genome, edit, inputs)) < 1e-9
        genome, model = edit.apply(genome), child_model

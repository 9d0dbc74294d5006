"""No way back through a pointwise convolution with a stride: oneDNN's writes past its memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from evo_topo.datasets import load_dataset
from evo_topo.edits import KINDS, legal_edits
from evo_topo.inheritance import Probe, inherit
from evo_topo.phenotype import build
from evo_topo.recipe import Recipe
from evo_topo.saliency import price
from evo_topo.training import train
from tests.strategies import Sketch

BACKWARD = torch.ops.aten.convolution_backward.default


class Watch(TorchDispatchMode):
    """Notes the windows and strides that weights of convolutions get their gradients through."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is BACKWARD:
            _, _, weight, _, stride = args[:5]
            self.seen.add((tuple(weight.shape[2:]), tuple(stride)))
        return func(*args, **(kwargs or {}))

    def overruns(self):
        return {(window, stride) for window, stride in self.seen if set(window) == {1} and set(stride) != {1}}


def narrow(kind):
    """Pointwise convolutions that read few channels, one with a stride, one on a large map, on digits."""
    net, settings = Sketch(1, 8, 8), {"sparse": {"fan_in": 2}, "binary": {"binary": True}}.get(kind, {})
    x = net.relu(net.conv(net.input, 3, 3, padding=(3, 3)))
    x = net.relu(net.conv(x, 4, 1))
    x = net.relu(net.conv(x, 5, 1, stride=(2, 2), **settings))
    return net.end(net.conv(x, 6, 3), 10)


def test_the_watch_sees_what_overruns():
    read, weight = torch.randn(2, 9, 4, 4), torch.randn(8, 9, 1, 1, requires_grad=True)
    with Watch() as watch:
        torch.nn.functional.conv2d(read, weight, stride=2).sum().backward()
    assert watch.overruns() == {((1, 1), (2, 2))}


@pytest.mark.parametrize("kind", ["dense", "sparse", "binary"])
def test_nothing_overruns_memory(kind):
    genome, task = narrow(kind), load_dataset("digits")
    model = build(genome)
    inputs, targets = task.normalise(task.train.inputs[:64]), task.train.targets[:64]
    with Watch() as watch:
        train(model, task, Recipe(examples=256, learning_rate=0.05), seed=0)
        edits = list(legal_edits(genome, kinds=KINDS))
        price(model, genome, edits, inputs, targets, refit=True)
        for edit in edits:
            inherit(model, genome, edit, Probe(inputs, targets))
    assert watch.seen
    assert not watch.overruns()

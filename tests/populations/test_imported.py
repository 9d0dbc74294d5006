"""Evolution from imported networks, end to end."""

import dataclasses

import numpy as np
import pytest
import torch
from torchvision.models import MobileNetV2
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, ResNet

from evo_topo import Task, from_module
from evo_topo.datasets import load_dataset
from populations import evolve
from populations.lineage import load_run, replay
from tests.families import randomised
from tests.small import small_config


def residual():
    net = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10)
    net.layer2, net.layer3, net.layer4 = (torch.nn.Identity() for _ in range(3))
    net.fc = torch.nn.Linear(64, 10)
    return net


NETS = {
    "residual": residual,
    "dense": lambda: DenseNet(4, (2, 2), 8, 2, num_classes=10),
    "depthwise": lambda: MobileNetV2(
        10, inverted_residual_setting=[[1, 8, 1, 2], [4, 12, 2, 2]], width_mult=1.0, dropout=0.0
    ),
}


def large_digits():
    """A few hundred digits, enlarged to colour images of 32 x 32."""
    digits = load_dataset("digits").train
    images = digits.inputs[:300].repeat_interleave(4, 2).repeat_interleave(4, 3).repeat(1, 3, 1, 1)
    return Task.from_arrays("large digits", images.numpy().astype(np.float32), digits.targets[:300].numpy())


@pytest.mark.slow
@pytest.mark.parametrize("name", NETS)
def test_imported_networks_evolve(name, tmp_path):
    task = large_digits()
    genome, model = from_module(randomised(NETS[name]()), task.input_shape)
    config = small_config(tmp_path / "run", generations=2, polish_examples=64, founder_examples=512)
    recipe = dataclasses.replace(config.recipe, examples=128)
    config = dataclasses.replace(config, recipe=recipe, accuracy_floor=0.0)
    result = evolve(config, task, founder=genome, weights=model.state_dict())
    everyone = load_run(result.run_dir)
    assert [i.outcome.status for i in everyone] == ["ok"] * len(everyone)
    assert any(i.edit is not None for i in everyone)
    assert all(replay(everyone, i.id) == i.genome for i in everyone)
    assert min(entry.flops for entry in result.front) < result.founder.flops

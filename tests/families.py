"""Networks of torchvision and timm to import, narrow where their makers allow it."""

from functools import partial

import timm
import torch
from torch import nn
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.googlenet import GoogLeNet
from torchvision.models.inception import Inception3
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import VGG, make_layers


def vgg(batch_norm):
    net = VGG(make_layers([8, "M", 16, 16, "M", 24, "M", 512, "M"], batch_norm), init_weights=False)
    net.classifier = nn.Sequential(nn.Linear(512 * 49, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 5))
    return net


def alexnet():
    net = models.alexnet(num_classes=5)
    net.classifier[1], net.classifier[4] = nn.Linear(256 * 36, 24), nn.Linear(24, 16)
    net.classifier[6] = nn.Linear(16, 5)
    return net


NARROW = {
    "resnet": partial(ResNet, BasicBlock, [1, 1, 1, 1], num_classes=5),
    "resnet_bottleneck": partial(ResNet, Bottleneck, [1, 2, 1, 1], num_classes=5),
    "resnext": partial(ResNet, Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=4, num_classes=5),
    "wide_resnet": partial(ResNet, Bottleneck, [1, 1, 1, 1], width_per_group=128, num_classes=5),
    "vgg": partial(vgg, False),
    "vgg_bn": partial(vgg, True),
    "alexnet": alexnet,
    "squeezenet1_0": partial(models.squeezenet1_0, num_classes=5),
    "squeezenet1_1": partial(models.squeezenet1_1, num_classes=5),
    "densenet": partial(DenseNet, 8, (2, 3, 2, 2), 16, 2, num_classes=5),
    "googlenet": partial(GoogLeNet, 5, aux_logits=False, init_weights=False),
    "googlenet_rescaling": partial(GoogLeNet, 5, aux_logits=False, transform_input=True, init_weights=False),
    "inception_v3": partial(Inception3, 5, aux_logits=False, init_weights=False),
    "mobilenet_v2": partial(models.mobilenet_v2, num_classes=5, width_mult=0.35),
    "mobilenet_v3_small": partial(models.mobilenet_v3_small, num_classes=5, width_mult=0.5),
    "mobilenet_v3_large": partial(models.mobilenet_v3_large, num_classes=5, width_mult=0.35),
    "mnasnet": partial(models.mnasnet0_5, num_classes=5),
    "efficientnet": partial(models.efficientnet_b0, num_classes=5),
    "regnet_y": partial(models.regnet_y_400mf, num_classes=5),
    "regnet_x": partial(models.regnet_x_400mf, num_classes=5),
    "shufflenet_v2": partial(models.shufflenet_v2_x0_5, num_classes=5),
}
"""A narrow network of each family of torchvision, for small images."""

FULL = (
    *(
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "vgg11_bn",
        "vgg16_bn",
        "alexnet",
    ),
    *("squeezenet1_0", "squeezenet1_1", "densenet121", "googlenet", "inception_v3", "mobilenet_v2"),
    *("mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "efficientnet_b0", "efficientnet_b1"),
    *("regnet_y_400mf", "shufflenet_v2_x1_0"),
)
"""Networks of torchvision as they are."""

TIMM = (
    *("lcnet_050", "test_resnet", "ghostnet_050", "regnetx_002", "rexnet_100", "mixnet_s", "semnasnet_050"),
    *("tinynet_e", "mobilenetv4_conv_small", "tf_mobilenetv3_small_minimal_100", "ese_vovnet19b_dw"),
    *("hardcorenas_a", "cs3darknet_s", "starnet_s1", "repghostnet_050", "seresnet18", "selecsls42b"),
    "repvgg_a0",
)
"""A small network of each of many families of timm."""


def full(name):
    options = {"aux_logits": False, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **options)


def extent(name):
    return 96 if name.startswith("inception") else 64


def randomised(net, seed=0):
    """The network in evaluation mode, with random parameters and BatchNorm statistics: faults show."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.1, generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, 0, (2 / fan_in) ** 0.5, generator=generator)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1, generator=generator)
    return net.eval()


def timm_net(name):
    return timm.create_model(name, pretrained=False, num_classes=5)

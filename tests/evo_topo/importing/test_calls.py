"""Every call that a genome expresses, one small module each, and refusals of all others."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from evo_topo import UnsupportedModuleError, count_params, from_module
from evo_topo.importing.calls import CALLS, MOVES
from evo_topo.ops import AdaptivePool, Pool
from tests.reference import relative_error


class Body(nn.Module):
    """A convolution, what is tested, and a classifier over whatever comes out."""

    def __init__(self, function, channels=6, classes=3, size=(7, 6)):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(2, channels, 3, padding=1)
        self.function = function
        self.layer = nn.Conv2d(channels, channels, 1)
        self.register_buffer("scale", torch.tensor(0.5))
        self.register_buffer("table", torch.ones(channels, 1, 1))
        self.size = size
        with torch.no_grad():
            features = torch.flatten(function(self, self.conv(torch.zeros(2, 2, *size))), 1).shape[1]
        self.classifier = nn.Linear(features, classes)

    def forward(self, x):
        return self.classifier(torch.flatten(self.function(self, self.conv(x)), 1))


class Line(nn.Module):
    """The same over sequences."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function, self.size = nn.Conv1d(2, 4, 3), function, (9,)
        self.classifier = nn.Linear(torch.flatten(function(self, torch.zeros(2, 4, 7)), 1).shape[1], 3)

    def forward(self, x):
        return self.classifier(torch.flatten(self.function(self, self.conv(x)), 1))


def overwritten(m, x):
    y = x + 1
    y += x
    return y * x


def overwritten_input(m, x):
    y = F.relu(x, inplace=True)
    return x + 2 * y


def shuffle(m, x):
    b, c, h, w = x.size()
    return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)


def halves(m, x):
    first, second = x.chunk(2, dim=1)
    return torch.cat((second, torch.relu(first)), 1)


def gate(m, x):
    pooled = x.mean((2, 3))
    return x * torch.sigmoid(pooled).view(x.shape[0], -1, 1, 1)


FUNCTIONS = {
    "relu": lambda m, x: F.relu(x),
    "relu_": lambda m, x: torch.relu_(x),
    "method": lambda m, x: x.relu(),
    "relu6": lambda m, x: F.relu6(x, inplace=True),
    "leaky_relu": lambda m, x: F.leaky_relu(x, 0.2),
    "elu": lambda m, x: F.elu(x, 0.5),
    "gelu": lambda m, x: F.gelu(x),
    "silu": lambda m, x: F.silu(x),
    "tanh": lambda m, x: torch.tanh(x),
    "sigmoid": lambda m, x: x.sigmoid(),
    "hardswish": lambda m, x: F.hardswish(x),
    "hardsigmoid": lambda m, x: F.hardsigmoid(x),
    "mish": lambda m, x: F.mish(x),
    "hardtanh": lambda m, x: F.hardtanh(x, 0.0, 6.0),
    "clamp": lambda m, x: x.clamp(min=0),
    "hand-made hardswish": lambda m, x: x * F.relu6(x + 3) / 6,
    "swish": lambda m, x: x * torch.sigmoid(x),
    "dropout": lambda m, x: F.dropout(x, 0.5, m.training),
    "dropout2d": lambda m, x: F.dropout2d(x, 0.5, m.training),
    "max_pool ceil": lambda m, x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "max_pool padded": lambda m, x: F.max_pool2d(x, (3, 2), stride=1, padding=(1, 0)),
    "avg_pool": lambda m, x: F.avg_pool2d(x, 2),
    "avg_pool pad counted": lambda m, x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
    "avg_pool pad not counted": lambda m, x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
    "adaptive to 1": lambda m, x: F.adaptive_avg_pool2d(x, 1),
    "adaptive to None": lambda m, x: F.adaptive_avg_pool2d(x, (None, 2)),
    "adaptive to the same": lambda m, x: F.adaptive_avg_pool2d(x, (7, 6)),
    "adaptive to more": lambda m, x: F.adaptive_avg_pool2d(x, (9, 4)),
    "adaptive max": lambda m, x: F.adaptive_max_pool2d(x, (3, 4)),
    "mean": lambda m, x: x.mean([2, 3]),
    "mean flat": lambda m, x: x.flatten(2).mean(-1),
    "amax": lambda m, x: x.amax((2, 3), keepdim=True),
    "pad": lambda m, x: F.pad(x, (1, 0, 0, 2)),
    "pad minus infinity": lambda m, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-math.inf), 2, 2),
    "pad nothing": lambda m, x: F.pad(x, (0, 0, 0, 0)),
    "crop by pad": lambda m, x: F.pad(x, (-1, 1, 0, -2)),
    "crop": lambda m, x: x[:, :, 1:, 2:-1],
    "stride": lambda m, x: x[:, :, ::2, 1::2],
    "stride and channels": lambda m, x: x[:, 1::2, ::3],
    "channels": lambda m, x: x[:, 1:3],
    "one channel": lambda m, x: x[:, 4].unsqueeze(1),
    "channels reversed": lambda m, x: x.flip(1),
    "shuffle": shuffle,
    "halves": halves,
    "split": lambda m, x: torch.cat(torch.split(x, [1, 2, 3], dim=1)[::-1], 1),
    "unbind": lambda m, x: torch.stack(x.unbind(1)[:1], 1) if False else x.unbind(1)[2].unsqueeze(1),
    "channels last and flat": lambda m, x: x.permute(0, 2, 3, 1).reshape(x.shape[0], -1),
    "view": lambda m, x: x.view(x.size(0), -1),
    "expand": lambda m, x: x * F.adaptive_avg_pool2d(x, 1).expand_as(x),
    "gate": gate,
    "constants": lambda m, x: 2 - (0.5 * x - 1) / 4 + x * m.scale,
    "negative": lambda m, x: -x,
    "square": lambda m, x: torch.square(x) + x * x,
    "difference": lambda m, x: x - F.relu(x),
    "sub alpha": lambda m, x: torch.sub(x, torch.tanh(x), alpha=2),
    "add alpha": lambda m, x: torch.add(x, torch.tanh(x), alpha=0.5),
    "add method": lambda m, x: x.add(F.relu(x)).mul_(2),
    "overwritten": overwritten,
    "overwritten input": overwritten_input,
    "cat of one": lambda m, x: torch.cat([x], 1),
    "cat features": lambda m, x: torch.cat([x.flatten(1), x.mean((2, 3))], 1),
    "same type": lambda m, x: x.to(torch.float32).float(),
    "layer": lambda m, x: m.layer(x) + x,
    "branches on shapes": lambda m, x: F.relu(x) if x.shape[-1] > 3 and x.dim() == 4 else x,
}
ON_LINES = {
    "relu": lambda m, x: F.relu(x),
    "max_pool": lambda m, x: F.max_pool1d(x, 2),
    "avg_pool": lambda m, x: F.avg_pool1d(x, 3, 2, 1, count_include_pad=False),
    "adaptive": lambda m, x: F.adaptive_avg_pool1d(x, 3),
    "mean": lambda m, x: x.mean(-1),
    "pad": lambda m, x: F.pad(x, (2, 1)),
    "gate": lambda m, x: x * x.mean(2).sigmoid()[:, :, None],
    "crop": lambda m, x: x[:, :2, 1:-2],
}


def check(net):
    net = net.eval()
    genome, model = from_module(net, (2, *net.size))
    inputs = torch.randn(3, 2, *net.size)
    with torch.no_grad():
        expected = net(inputs.clone())
        assert relative_error(model(inputs.clone()), expected) < 1e-5
    return genome


@pytest.mark.parametrize("name", FUNCTIONS)
def test_calls_on_maps(name):
    check(Body(FUNCTIONS[name]))


@pytest.mark.parametrize("name", ON_LINES)
def test_calls_on_sequences(name):
    check(Line(ON_LINES[name]))


def test_adaptive_pooling_becomes_the_simplest_pooling():
    def ops(size):
        return [
            type(n.op) for n in check(Body(lambda m, x: F.adaptive_avg_pool2d(x, size), size=(8, 8))).nodes
        ]

    assert Pool in ops(4)
    assert AdaptivePool in ops(3)
    assert {Pool, AdaptivePool}.isdisjoint(ops(8))


LAYERS = {
    "norms": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, 2, 1),
        nn.BatchNorm1d(4, eps=0.01),
        nn.Flatten(),
        nn.Linear(20, 6),
        nn.BatchNorm1d(6),
    ),
    "same padding": lambda: nn.Sequential(nn.Conv1d(2, 4, 4, padding="same"), nn.Flatten(), nn.Linear(36, 6)),
    "valid padding": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 4, padding="valid"), nn.Flatten(), nn.Linear(24, 6)
    ),
    "dilated groups": lambda: nn.Sequential(
        nn.Conv1d(2, 4, 3, groups=2, dilation=2), nn.Flatten(), nn.Linear(20, 6)
    ),
}


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    torch.manual_seed(0)
    net = LAYERS[name]()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    net.size = (9,)
    assert count_params(check(net)) == sum(p.numel() for p in net.parameters())


def branch(m, x):
    return x if x.sum() > 0 else -x


def overwritten_part(m, x):
    part = x[:, :2]
    part += 1
    return x


def assigned_part(m, x):
    x[:, :2] = 0
    return x


REFUSED = {
    "softmax": (lambda m, x: x.softmax(1), "call softmax .*vocabulary does not have it"),
    "branch": (branch, "cannot be recorded.*bool|cannot be recorded.*control flow"),
    "batch statistics": (lambda m, x: F.batch_norm(x, None, None, training=True), "statistics of the batch"),
    "batch mixed": (lambda m, x: x + x.flip(0), "no operation rearranges"),
    "learned gain": (lambda m, x: x * m.conv.bias.view(-1, 1, 1), "combines .*stored tensor"),
    "table": (lambda m, x: x * m.table, "stored tensor table"),
    "shared weights": (lambda m, x: m.layer(m.layer(x)), "'layer.weight' is used a second time"),
    "computed weights": (
        lambda m, x: F.conv2d(x, m.layer.weight - m.layer.weight.mean()),
        "weight is computed from other tensors",
    ),
    "functional noise": (lambda m, x: F.dropout(x, 0.5, True), "in evaluation mode"),
    "reflected": (lambda m, x: F.pad(x, (1, 1, 1, 1), "reflect"), "padding by reflect"),
    "padded channels": (lambda m, x: F.pad(x, (0, 0, 0, 0, 1, 1)), "adds channels"),
    "joined rows": (lambda m, x: torch.cat([x, x], 2), "only channels"),
    "spatial gate": (lambda m, x: x * torch.sigmoid(x[:, :1]), "do not fit|combines"),
    "rows of tokens": (lambda m, x: F.linear(x, torch.zeros(2, 6)), "constant tensor|linear layer over"),
    "mean over channels": (lambda m, x: x.mean(1), "expected all extents"),
    "divided": (lambda m, x: x / (1 + x * x), "divides by an activation"),
    "clamped": (lambda m, x: x.clamp(-1, 1), "only ReLU and ReLU6"),
    "tanh gelu": (lambda m, x: F.gelu(x, approximate="tanh"), "only the exact one"),
    "dilated pool": (lambda m, x: F.max_pool2d(x, 2, dilation=2), "dilation"),
    "divisor": (lambda m, x: F.avg_pool2d(x, 2, divisor_override=3), "divisor 3"),
    "other type": (lambda m, x: x.double().float(), "float64"),
    "over a part": (overwritten_part, "of which a part is read later"),
    "assigned part": (assigned_part, "item assignment"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_name_module_call_and_line(name):
    function, message = REFUSED[name]
    with pytest.raises(UnsupportedModuleError, match=message) as caught:
        from_module(Body(function).eval(), (2, 7, 6))
    text = str(caught.value)
    assert "Body" in text or "Conv2d" in text
    assert "test_calls.py:" in text


@pytest.mark.parametrize(
    ("net", "shape", "message"),
    [
        (
            nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()),
            (3, 4, 4),
            "cannot be recorded with inputs of shape",
        ),
        (nn.Sequential(nn.Conv2d(2, 3, 3)), (2, 4, 4), "expected logits"),
        (nn.Sequential(nn.Flatten()), (2, 4, 4), "float32 or float64 parameters, got none"),
        (nn.Linear(4, 2).half(), (4,), "got torch.float16"),
        (nn.Sequential(nn.LSTM(4, 2)), (5, 4), "LSTM"),
        (nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), (4,), "LayerNorm.*layer_norm"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, affine=False)), (4,), "without learned scale"),
        (nn.Sequential(nn.Linear(4, 3), nn.PReLU(3)), (4,), "PReLU"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3, 2)), (3,), None),
    ],
)
def test_modules_of_torch_that_are_refused(net, shape, message):
    if message is None:
        assert from_module(net, shape)[0].num_classes == 2
        return
    with pytest.raises(UnsupportedModuleError, match=message):
        from_module(net, shape)


def test_random_networks_are_refused():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(x) * float(torch.rand(()))

    with pytest.raises(UnsupportedModuleError, match="does not compute what the module does"):
        from_module(Noisy(), (4,))


def test_further_arguments_keep_their_defaults():
    class Optional(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x, mask=None, twice=True):
            x = self.layer(x if mask is None else x * mask)
            return 2 * x if twice else x

    net = Optional()
    model = from_module(net, (4,))[1]
    inputs = torch.randn(3, 4)
    assert relative_error(model(inputs), net(inputs)) < 1e-6


def test_two_inputs_are_refused():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x, y):
            return self.layer(x + y)

    with pytest.raises(UnsupportedModuleError, match="takes more than one input"):
        from_module(Two(), (4,))


def test_the_module_stays_as_it_is():
    net = Body(FUNCTIONS["layer"]).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    _, model = from_module(net, (2, 7, 6))
    assert torch.equal(torch.get_rng_state(), state)
    assert net.training
    assert model.training
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert set(vars(net)) == set(vars(Body(FUNCTIONS["layer"])))


def test_type_is_kept():
    net = Body(FUNCTIONS["relu"]).double()
    _, model = from_module(net, (2, 7, 6))
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_calls_and_moves_do_not_overlap():
    assert not MOVES & CALLS.keys()


def test_a_network_that_answers_zero_comes_in():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    nn.init.zeros_(net[2].weight)
    nn.init.zeros_(net[2].bias)
    _, model = from_module(net, (1, 6, 6))
    assert not model(torch.randn(2, 1, 6, 6)).any()


def test_moves_may_be_called_by_keyword():
    net = Body(lambda net, x: torch.flatten(input=x, start_dim=1))
    genome, model = from_module(net.eval(), (2, 7, 6))
    inputs = torch.randn(3, 2, 7, 6)
    assert relative_error(model.eval()(inputs), net(inputs)) < 1e-5
    assert genome.num_classes == 3


def test_pooling_with_holes_in_one_direction_is_refused():
    net = Body(lambda net, x: F.max_pool2d(x, 2, dilation=(1, 2)))
    with pytest.raises(UnsupportedModuleError, match="dilation"):
        from_module(net.eval(), (2, 7, 6))


def test_extents_that_are_only_viewed_anew_are_refused():
    net = Body(lambda net, x: net.layer(x.view(x.shape[0], x.shape[1], 2, 4)), size=(4, 2))
    with pytest.raises(UnsupportedModuleError, match="no operation rearranges"):
        from_module(net.eval(), (2, 4, 2))

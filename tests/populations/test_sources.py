import pytest
import torch
import torchvision
from safetensors.torch import save_file

from evo_topo import build, count_params
from evo_topo.exporting import export
from populations import evolve
from populations.classics import FOUNDERS
from populations.config import ConfigError
from populations.sources import adapt, find_founder
from populations.survivors import find_survivor
from tests.small import small_config, small_founder, small_task
from tests.strategies import resnet


def test_names_and_files(tmp_path):
    assert find_founder("lenet5", (1, 28, 28), 10).genome == FOUNDERS["lenet5"]((1, 28, 28), 10)
    genome = resnet((4, 6), 1, 8)
    (tmp_path / "genome.json").write_text(genome.to_json())
    founder = find_founder(str(tmp_path / "genome.json"), (3, 8, 8), 10)
    assert founder == (genome, None)


def test_a_network_of_torchvision_founds_a_run_on_small_grey_images():
    founder = find_founder("torchvision:resnet18", (1, 28, 28), 7)
    assert founder.state is None
    assert (founder.genome.input_shape, founder.genome.num_classes) == ((1, 28, 28), 7)
    net = torchvision.models.resnet18(num_classes=7)
    assert count_params(founder.genome) == sum(p.numel() for p in net.parameters()) - 2 * 64 * 49


def test_trained_weights_of_torchvision_keep_all_but_the_classifier(tmp_path):
    net = torchvision.models.squeezenet1_1(num_classes=20).eval()
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    founder = find_founder("torchvision:squeezenet1_1", (3, 64, 64), 5, tmp_path / "w.safetensors")
    model = build(founder.genome).eval()
    model.load_state_dict(founder.state)
    theirs = [p for name, p in net.named_parameters() if not name.startswith("classifier")]
    ours = [p for p in model.parameters() if len(p) != 5]
    assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_auxiliary_heads_in_trained_weights_are_left_out(tmp_path):
    net = torchvision.models.googlenet(num_classes=4, aux_logits=True, init_weights=False)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    founder = find_founder("torchvision:googlenet", (3, 64, 64), 4, tmp_path / "w.safetensors")
    used = [p for name, p in net.named_parameters() if not name.startswith("aux")]
    ours = [p for name, p in founder.state.items() if name.endswith(("weight", "bias"))]
    assert {(*p.shape, p.sum().item()) for p in used} == {(*p.shape, p.sum().item()) for p in ours}


def test_weights_of_another_network_of_torchvision_are_refused(tmp_path):
    save_file(torchvision.models.squeezenet1_1().state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(ConfigError, match=r"they lack bn1\..*, and hold besides classifier\."):
        find_founder("torchvision:resnet18", (3, 32, 32), 10, tmp_path / "w.safetensors")


@pytest.mark.parametrize("classes", [10, 4])
def test_weights_are_kept_and_the_classifier_follows_the_classes(classes, tmp_path):
    genome = FOUNDERS["lenet5"]((1, 28, 28), 10)
    model = build(genome, seed=3)
    export(genome, model, tmp_path / "out", onnx=False)
    for source, weights in (
        (tmp_path / "out", None),
        ("lenet5", tmp_path / "out/model.safetensors"),
        (tmp_path / "out/genome.json", tmp_path / "out/model.safetensors"),
    ):
        founder = find_founder(str(source), (1, 28, 28), classes, weights)
        assert founder.genome.num_classes == classes
        old = model.state_dict()
        changed = {name for name, value in founder.state.items() if not torch.equal(value, old[name])}
        assert changed == (set() if classes == 10 else {"linear12.weight", "linear12.bias"})
        build(founder.genome).load_state_dict(founder.state)


def test_adapting_changes_only_both_ends():
    genome = resnet((4, 6), 1, 8)
    adapted, renewed = adapt(genome, (1, 8, 8), 3)
    last = next(node.name for node in reversed(genome.nodes) if node.name.startswith("linear"))
    assert renewed == {"conv1", last}
    assert (adapted.input_shape, adapted.num_classes) == ((1, 8, 8), 3)
    assert adapt(genome, (3, 8, 8), 10) == (genome, frozenset())


@pytest.mark.parametrize(
    ("source", "shape", "message"),
    [
        ("nothing", (3, 8, 8), "expected one of minimal, mlp"),
        ("torchvision:nothing", (3, 32, 32), "list_models"),
        ("torchvision:resnet18", (8,), "read images"),
        ("torchvision:convnext_tiny", (3, 32, 32), "LayerNorm2d.*layer_norm"),
        ("vgg19", (3, 8, 8), "at least 16 x 16"),
    ],
)
def test_founders_that_cannot_be(source, shape, message):
    with pytest.raises(ConfigError, match=f"founder '{source}'.*{message}"):
        find_founder(source, shape, 10)


def test_files_that_do_not_fit(tmp_path):
    (tmp_path / "genome.json").write_text(resnet((4, 6), 1, 8).to_json())
    path = str(tmp_path / "genome.json")
    with pytest.raises(ConfigError, match=r"reads inputs of shape \(3, 8, 8\), the task has \(3, 9, 9\)"):
        find_founder(path, (3, 9, 9), 10)
    with pytest.raises(ConfigError, match="cannot be read"):
        find_founder(path, (3, 8, 8), 10, tmp_path / "none")
    (tmp_path / "bad").write_bytes(b"123456789")
    with pytest.raises(ConfigError, match="expected a sound safetensors file"):
        find_founder(path, (3, 8, 8), 10, tmp_path / "bad")
    save_file({"x": torch.zeros(2)}, tmp_path / "other")
    with pytest.raises(ConfigError, match=r"expected conv1.weight of shape \(4, 3, 3, 3\), got none"):
        find_founder(path, (3, 8, 8), 10, tmp_path / "other")
    (tmp_path / "genome.json").write_text("{}")
    with pytest.raises(ConfigError, match="not a genome"):
        find_founder(path, (3, 8, 8), 10)


def test_weights_of_a_survivor_must_be_the_recorded_ones(tmp_path):
    evolve(small_config(tmp_path / "run", generations=1, compare=False), small_task(), small_founder())
    genome = find_founder(f"{tmp_path / 'run'}:best", (1, 8, 8), 10)[0]
    [path] = [
        p
        for p in (tmp_path / "run" / "weights").iterdir()
        if p.stem == str(find_survivor(tmp_path / "run", "best").individual.id)
    ]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="SHA-256"):
        find_founder(f"{tmp_path / 'run'}:best", (1, 8, 8), 10)
    assert genome.num_classes == 10

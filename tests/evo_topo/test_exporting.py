import importlib.util
import json
import subprocess
import sys

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

from evo_topo import build
from evo_topo.exporting import ONNX, PT2, SOURCE, WEIGHTS, ExportError, export, read_export
from evo_topo.genome import GenomeError
from evo_topo.ops import Pad, Pool
from evo_topo.source import write_source
from tests.reference import randomised
from tests.strategies import EXAMPLES, Sketch

FORMS = {WEIGHTS, SOURCE, PT2, ONNX}


def network(name):
    genome = EXAMPLES[name]()
    return genome, randomised(genome).float()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("squeeze_excitation", marks=pytest.mark.slow),
        "selected",
        "vector_gate",
        "one_dimensional",
        "versatile",
    ],
)
def test_every_form_computes_what_the_network_does(name, tmp_path):
    genome, model = network(name)
    exported = export(genome, model, tmp_path / "out")
    assert exported.errors.keys() == FORMS
    assert not exported.left_out
    assert max(exported.errors.values()) < 1e-4
    assert {path.name for path in (tmp_path / "out").iterdir()} == FORMS | {"genome.json"}
    assert read_export(tmp_path / "out")[0] == genome
    inputs = torch.randn(7, *genome.input_shape)
    with torch.no_grad():
        expected = model(inputs)
        program = torch.export.load(tmp_path / "out" / PT2).module()
        torch.testing.assert_close(program(inputs), expected)
    session = onnxruntime.InferenceSession(tmp_path / "out" / ONNX)
    got = session.run(["logits"], {"input": inputs.numpy()})[0]
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-4, atol=1e-5)


def test_the_source_needs_nothing_but_torch(tmp_path):
    genome, model = network("vector_gate")
    export(genome, model, tmp_path, onnx=False)
    inputs = torch.randn(2, *genome.input_shape)
    code = (
        "import sys, torch, model\n"
        f"inputs = torch.tensor({inputs.tolist()})\n"
        "assert not {'evo_topo', 'safetensors'} & {name.split('.')[0] for name in sys.modules}\n"
        "with torch.no_grad(): print(model.load()(inputs).tolist())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), model(inputs))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_source_of_any_network_is_the_network(name):
    genome, model = network(name)
    room = {"__file__": "model.py", "__name__": "model"}
    exec(compile(write_source(model), "model.py", "exec"), room)
    copy = room["Network"]().eval()
    copy.load_state_dict(model.state_dict())
    inputs = torch.randn(2, *genome.input_shape)
    with torch.no_grad():
        assert torch.equal(copy(inputs), model(inputs))
    assert max(map(len, write_source(model).splitlines())) < 2000


def test_the_source_lets_go_of_what_nothing_reads_any_more():
    _, model = network("depthwise")
    assert "        del " in write_source(model)


def test_the_model_stays_as_it_is(tmp_path):
    genome = EXAMPLES["depthwise"]()
    model = build(genome).double().train()
    export(genome, model, tmp_path, onnx=False)
    assert model.training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert all(p.requires_grad for p in model.parameters())
    assert load_file(tmp_path / WEIGHTS)["conv1.weight"].dtype == torch.float32


def test_onnx_is_left_out_or_refused_without_its_packages(tmp_path, monkeypatch):
    genome, model = network("depthwise")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else find(name, *rest)
    )
    exported = export(genome, model, tmp_path)
    assert exported.left_out == {ONNX: "onnx not installed"}
    assert not (tmp_path / ONNX).exists()
    with pytest.raises(ExportError, match=r"ONNX needs onnx: pip install 'evo_topo\[onnx\]'"):
        export(genome, model, tmp_path, onnx=True)


def test_a_form_that_computes_something_else_is_noticed(tmp_path, monkeypatch):
    genome, model = network("depthwise")

    def write_wrongly(network):
        return write_source(network).replace("return network.eval()", "return network.train()")

    monkeypatch.setattr("evo_topo.exporting.write_source", write_wrongly)
    with pytest.raises(ExportError, match=r"model\.py does not compute what the network does"):
        export(genome, model, tmp_path, onnx=False)


def test_folders_that_are_no_export(tmp_path):
    with pytest.raises(ExportError, match="is no exported network"):
        read_export(tmp_path / "none")
    genome, model = network("depthwise")
    export(genome, model, tmp_path, onnx=False)
    (tmp_path / WEIGHTS).write_bytes((tmp_path / WEIGHTS).read_bytes()[:50])
    with pytest.raises(ExportError, match="damaged"):
        read_export(tmp_path)
    (tmp_path / "genome.json").write_text("{}")
    with pytest.raises(GenomeError):
        read_export(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match="cannot be written"):
        export(genome, model, tmp_path / "file", onnx=False)


def test_infinite_margins_are_written(tmp_path):
    net = Sketch(2, 4, 4)
    x = net.add(Pool((2, 2)), net.add(Pad((1, 0), (0, 1), "lowest"), net.conv(net.input, 3)))
    genome = net.end(x)
    assert export(genome, build(genome), tmp_path).errors.keys() == FORMS

"""Which room may import what."""

import ast
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("evo_topo", "populations", "analysis")
FORBIDDEN = {
    "evo_topo": {"deap", "joblib", "matplotlib", "populations", "analysis", "run"},
    "populations": {"matplotlib", "analysis", "run"},
    "analysis": {"deap", "joblib", "torch", "torchvision", "run"},
    "benchmarks": {"run"},  # they time everything there is, so they may import everything
}


def room_of(module):
    return "benchmarks" if module.startswith("analysis.benchmarks") else module.split(".")[0]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules():
    return {module_name(path): path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))}


def imports(path, when_loaded=False):
    """Names of all modules that a file imports, those for type checkers and inside functions too.

    With `when_loaded`, only those that loading the module imports.
    """
    found, waiting = set(), [ast.parse(path.read_text())]
    while waiting:
        at = waiting.pop()
        if isinstance(at, ast.Import):
            found.update(alias.name for alias in at.names)
        elif isinstance(at, ast.ImportFrom):
            assert at.level == 0, f"{path}: imports are absolute"
            found.update({at.module, *(f"{at.module}.{alias.name}" for alias in at.names)})
        is_later = isinstance(at, ast.FunctionDef) or (isinstance(at, ast.If) and is_type_check(at))
        if not (when_loaded and is_later):
            waiting.extend(ast.iter_child_nodes(at))
    return found


def is_type_check(branch):
    return isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"


@pytest.mark.parametrize("module", modules())
def test_rooms_import_only_what_they_may(module):
    roots = {name.split(".")[0] for name in imports(modules()[module])}
    assert not roots & FORBIDDEN[room_of(module)]


def reachable(module, when_loaded=False):
    """The module and those of our own that it imports, directly or not."""
    known, found, waiting = modules(), set(), {module}
    while waiting:
        found.add(at := waiting.pop())
        waiting |= (imports(known[at], when_loaded) & known.keys()) - found
    return found


@pytest.mark.parametrize("module", [name for name in modules() if room_of(name) == "analysis"])
def test_analysis_needs_only_the_lineage_and_no_torch(module):
    known = modules()
    allowed = (reachable("populations.calibrating") | reachable("populations.lineage")) | {"populations"}
    direct = imports(known[module]) & known.keys()
    assert {name for name in direct if name.startswith("populations")} <= allowed
    loaded = set().union(*(imports(known[name], when_loaded=True) for name in reachable(module, True)))
    assert "torch" not in {name.split(".")[0] for name in loaded}


def test_the_walk_sees_the_modules():
    assert {"evo_topo", "evo_topo.genome", "evo_topo.edits.base"} <= modules().keys()
    assert "evo_topo.genome" in imports(modules()["evo_topo.units"])
    assert "torch" in imports(modules()["evo_topo.phenotype"])


def test_no_import_cycles():
    known = modules()
    graph = {
        name: {other for other in imports(path, when_loaded=True) if other in known and other != name}
        for name, path in known.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def loaded_after(code):
    script = f"{code}\nimport sys; print(*sys.modules)"
    command = [sys.executable, "-W", "error", "-c", script]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())


def test_genome_work_needs_neither_torch_nor_numpy():
    code = """
import random
from evo_topo import Genome, count_flops, legal_edits, random_edit
text = '''{"nodes": [
    {"name": "input1", "op": {"kind": "input", "shape": [3]}},
    {"name": "linear1", "op": {"kind": "linear", "out_features": 4}, "inputs": ["input1"]},
    {"name": "linear2", "op": {"kind": "linear", "out_features": 2}, "inputs": ["linear1"]},
    {"name": "output1", "op": {"kind": "output"}, "inputs": ["linear2"]}]}'''
genome = Genome.from_json(text)
child = random_edit(genome, random.Random(0)).apply(genome)
assert child.fingerprint != genome.fingerprint and count_flops(child) and list(legal_edits(child))
"""
    assert not loaded_after(code) & {"torch", "numpy", "sklearn", "deap", "joblib", "matplotlib"}


def test_training_loads_torch_but_not_its_compiler():
    code = """
from evo_topo import Recipe, build, load_dataset, train
from populations.founders import conv_net
task = load_dataset("digits")
train(build(conv_net((1, 8, 8), 10, (4,), (1,))), task, Recipe(examples=64, learning_rate=0.1), 0)"""
    loaded = loaded_after(code)
    assert "torch" in loaded
    assert "torch._dynamo" not in loaded  # it takes two seconds of every worker


def test_every_package_is_installed():
    with open(ROOT / "pyproject.toml", "rb") as file:
        listed = tomllib.load(file)["tool"]["setuptools"]["packages"]
    packages = {name for name, path in modules().items() if path.name == "__init__.py"}
    assert set(listed) == packages


@pytest.mark.parametrize("package", ["evo_topo", "populations"])
def test_every_public_name_is_there(package):
    module = import_module(package)
    assert all(getattr(module, name) is not None for name in module.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense


def test_the_loop_knows_no_screen():
    used = {
        name.split(".")[0] for module in reachable("populations.run") for name in imports(modules()[module])
    }
    assert not used & {"rich", "tyro"}

import json
import os
import random
import subprocess
import sys
import tracemalloc
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evo_topo.genome import MAX_JSON_BYTES, MAX_NODES, Genome, GenomeError, Node
from evo_topo.ops import (
    Activation,
    Add,
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
    Scale,
)
from evo_topo.units import unit_table
from tests.strategies import EXAMPLES, Sketch, genomes, perceptron, resnet


@given(genome=genomes())
def test_round_trip_is_exact(genome):
    again = Genome.from_json(genome.to_json())
    assert again == genome
    assert hash(again) == hash(genome)
    assert again.to_json() == genome.to_json()
    assert Genome.from_json(genome.to_json().encode()) == genome


@given(genome=genomes(), rng=st.randoms(use_true_random=False))
def test_fingerprint_ignores_names_and_order(genome, rng):
    disguised = shuffled(genome, rng)
    assert disguised.fingerprint == genome.fingerprint
    assert len(genome.fingerprint) == 32


def shuffled(genome, rng):
    """The same graph under other names, in another topological order, sums in another order."""
    numbers = rng.sample(range(1000), len(genome.nodes))
    names = {node.name: f"n{number}" for node, number in zip(genome.nodes, numbers, strict=True)}
    waiting, placed = list(genome.nodes), []
    while waiting:
        done = {node.name for node in placed}
        ready = [node for node in waiting if done.issuperset(node.inputs)]
        placed.append(node := rng.choice(ready))
        waiting.remove(node)
    nodes = []
    for node in placed:
        reads = [names[name] for name in node.inputs]
        if isinstance(node.op, Add | Multiply):
            rng.shuffle(reads)
        nodes.append(Node(names[node.name], node.op, tuple(reads)))
    return Genome(tuple(nodes))


def test_fingerprint_is_the_same_in_any_process():
    code = "import sys; from evo_topo import Genome; print(Genome.from_json(sys.stdin.read()).fingerprint)"
    genome = resnet((4, 6), 1, 8)
    for seed in ("1", "2"):
        found = subprocess.run(
            [sys.executable, "-c", code],
            input=genome.to_json(),
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.strip() == genome.fingerprint


def two_layers(first, second, combine=Concat()):  # noqa: B008
    net = Sketch(3)
    x = net.linear(net.input, 4)
    x, y = net.add(first, x), net.add(second, x)
    return net.finish(net.linear(net.add(combine, x, y), 2))


def shared(pairs, combine=Add()):  # noqa: B008
    """Equal layers, combined in pairs by number and summed up."""
    net = Sketch(3)
    layers = [net.linear(net.input, 4) for _ in range(1 + max(map(max, pairs)))]
    ends = [net.add(combine, layers[a], layers[b]) for a, b in pairs]
    return net.finish(net.linear(net.add(Add(), *ends), 2))


DIFFERENT = {
    "relu, tanh": two_layers(Activation("relu"), Activation("tanh")),
    "tanh, relu": two_layers(Activation("tanh"), Activation("relu")),
    "relu, relu": two_layers(Activation("relu"), Activation("relu")),
    "relu + tanh": two_layers(Activation("relu"), Activation("tanh"), Add()),
    "relu * tanh": two_layers(Activation("relu"), Activation("tanh"), Multiply()),
    "dropout": two_layers(Activation("relu"), Dropout(0.1)),
    "other dropout": two_layers(Activation("relu"), Dropout(0.2)),
    "norm": two_layers(Activation("relu"), Norm()),
    "other norm": two_layers(Activation("relu"), Norm(1e-3)),
    "one layer read twice": shared([(0, 0), (0, 0)]),
    "two equal layers, each by one": shared([(0, 0), (1, 1)]),
    "two equal layers, each by both": shared([(0, 1), (0, 1)]),
    "two equal layers, one by both": shared([(0, 0), (0, 1)]),
    "product, each by one": shared([(0, 0), (1, 1)], Multiply()),
    "product, each by both": shared([(0, 1), (0, 1)], Multiply()),
    "joined, each by one": shared([(0, 0), (1, 1)], Concat()),
    "joined, each by both": shared([(0, 1), (0, 1)], Concat()),
    "joined, in turn": shared([(0, 1), (1, 0)], Concat()),
}


def test_fingerprints_of_different_graphs_differ():
    prints = {name: genome.fingerprint for name, genome in DIFFERENT.items()}
    prints |= {name: make().fingerprint for name, make in EXAMPLES.items()}
    assert len(set(prints.values())) == len(prints) == len(DIFFERENT) + len(EXAMPLES)


def test_fingerprint_follows_equality_of_numbers():
    exact, *others = (two_layers(Norm(1), Dropout(rate)) for rate in (0.0, 0, -0.0))
    for other in others:
        assert exact == other
        assert exact.fingerprint == other.fingerprint == Genome.from_json(other.to_json()).fingerprint


def test_properties_of_an_example():
    genome = resnet()
    assert (genome.input_shape, genome.num_classes) == ((3, 32, 32), 10)
    first = genome.nodes[0].name
    assert genome.readers[first] == (genome.nodes[1].name,)
    assert genome.input_shapes(genome.nodes[1]) == ((3, 32, 32),)
    lines = str(genome).splitlines()
    assert len(lines) == len(genome.nodes)
    assert lines[1].split() == ["conv1", "Conv", "3x3", "16x32x32", "432", "<-", "input0"]


def nodes(*rows):
    return tuple(Node(name, op, tuple(reads)) for name, op, *reads in rows)


START = ("input1", Input((3,)))
RELU = Activation("relu")
INVALID = {
    "empty": (nodes(), "expected one Input node, got none"),
    "no output": (nodes(START, ("linear1", Linear(2), "input1")), "expected one Output node, got none"),
    "two inputs": (nodes(START, ("input2", Input((3,)))), "'input1', 'input2'"),
    "two outputs": (
        nodes(START, ("linear1", Linear(2), "input1"), *[(f"o{i}", Output(), "linear1") for i in (1, 2)]),
        "expected one Output node, got \\['o1', 'o2'\\]",
    ),
    "duplicate name": (nodes(START, ("input1", Linear(2), "input1")), "'input1': the name occurs twice"),
    "self-loop": (nodes(START, ("add1", Add(), "input1", "add1")), "'add1': reads 'add1'.*a cycle"),
    "cycle": (nodes(START, ("add1", Add(), "input1", "relu1"), ("relu1", RELU, "add1")), "'add1'.*a cycle"),
    "missing": (nodes(START, ("relu1", RELU, "conv1")), "'relu1': reads 'conv1', which does not exist"),
    "long missing": (nodes(START, ("relu1", RELU, "x" * 9999)), "'relu1': reads 'x{80}',"),
    "unread": (
        nodes(
            START, ("relu1", RELU, "input1"), ("linear1", Linear(2), "input1"), ("o1", Output(), "linear1")
        ),
        "'relu1': no other node reads it",
    ),
    "read output": (
        nodes(START, ("linear1", Linear(2), "input1"), ("o1", Output(), "linear1"), ("relu1", RELU, "o1")),
        "'o1': the output is read",
    ),
    "nothing to train": (nodes(START, ("o1", Output(), "input1")), "no Conv or Linear"),
    "arity": (nodes(START, ("add1", Add(), "input1")), "'add1': Add reads 2 to 1024 inputs, got 1"),
    "input reads": (nodes(START, ("input2", Input((3,)), "input1")), "'input2': Input reads 0 to 0"),
    "shapes": (nodes(START, ("conv1", Conv(2, (1, 1)), "input1")), "'conv1': a 2-D convolution cannot"),
    "too large": (nodes(("input1", Input((65536, 65536, 9)))), "'input1': output .* has over"),
    "name in capitals": (nodes(("Input1", Input((3,)))), "node 'Input1': a name is"),
    "name of a method": (nodes(("forward", Input((3,)))), "node 'forward': a name is"),
    "name with a dot": (nodes(("a.1", Input((3,)))), "node 'a.1': a name is"),
    "name with a line end": (nodes(("a1\n", Input((3,)))), "a name is"),
    "name too long": (nodes(("a" * 64 + "1", Input((3,)))), "a name is"),
    "too many": (nodes(START) * (MAX_NODES + 1), "20,001 nodes: at most 20,000"),
}


@pytest.mark.parametrize("case", INVALID)
def test_faults_are_named(case):
    rows, message = INVALID[case]
    with pytest.raises(GenomeError, match=message) as caught:
        Genome(rows)
    assert len(str(caught.value)) < 500
    with pytest.raises(GenomeError, match=message):
        Genome.from_json(msgspec.json.encode({"nodes": rows}))


def text_of(op, name="n1"):
    return json.dumps({"nodes": [{"name": "input0", "op": {"kind": "input", "shape": [3]}}]})[:-2] + (
        f', {{"name": "{name}", "op": {op}, "inputs": ["input0"]}}]}}'
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a genome"),
        ("null", "not a genome: Expected `object`, got `null`"),
        ("[]", "not a genome"),
        ("{}", "missing required field `nodes`"),
        ('{"nodes": null}', "not a genome"),
        ('{"nodes": [null]}', "node number 0"),
        ('{"nodes": [], "more": 1}', "unknown field"),
        ('{"nodes": [{"name": null}]}', "node number 0"),
        ('{"nodes": [{"name": "a1", "op": 3}], "nodes": []}', "node number 0"),
        (b'{"nodes": [{"name": "a1", "op": 3}], "x": "\xff"}', "node number 0"),
        (b"\xff\xfe", "not a genome"),
        ('{"nodes": [{"name": "\ud800"}]}', "not a genome"),
        ('{"nodes": ' + "[" * 100_000, "not a genome|node number 0"),
        ('{"nodes": [' + '{"name":' * 100_000, "not a genome|node number 0"),
        (text_of("null"), "node 'n1'"),
        (text_of('{"kind": "eval"}'), "node 'n1'.*eval"),
        (text_of('{"kind": "linear"}'), "node 'n1'.*out_features"),
        (text_of('{"kind": "linear", "out_features": 0}'), "node 'n1'"),
        (text_of('{"kind": "linear", "out_features": "4"}'), "node 'n1'"),
        (text_of('{"kind": "linear", "out_features": 4.5}'), "node 'n1'"),
        (text_of('{"kind": "linear", "out_features": 65537}'), "node 'n1'"),
        (text_of('{"kind": "linear", "out_features": %s}' % ("9" * 5000)), "node number 1: Integer value"),
        (text_of('{"kind": "linear", "out_features": NaN}'), "not a genome"),
        (text_of('{"kind": "linear", "out_features": 4, "code": 1}'), "node 'n1'.*unknown field `code`"),
        (text_of('{"kind": "dropout", "rate": 1e999}'), "node number 1: Number out of range"),
        (text_of('{"kind": "norm", "eps": -1}'), "node 'n1'"),
        (text_of('{"kind": "conv", "out_channels": 4, "kernel": [3, 3, 3]}'), "node 'n1'"),
        (text_of('{"kind": "conv", "out_channels": 4, "kernel": []}'), "node 'n1'.*1 or 2 extents"),
        (text_of('{"kind": "conv", "out_channels": 4, "kernel": [1], "stride": [0]}'), "node 'n1'"),
        (text_of('{"kind": "linear", "out_features": 0}', "n" * 9999), "node 'n{80}'"),
    ],
    ids=lambda value: repr(value[:60]),
)
def test_malformed_text_is_refused(text, message):
    with pytest.raises(GenomeError, match=message):
        Genome.from_json(text)


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 70_000),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["conv", "linear", "add", "input0", "output"]),
    st.lists(st.integers(0, 9), max_size=4),
    st.dictionaries(st.sampled_from(["kind", "name", "op"]), st.integers(), max_size=2),
)


@settings(max_examples=300)
@given(name=st.sampled_from(sorted(EXAMPLES)), seed=st.integers(0, 2**32), odd=ODD, damage=st.integers(0, 5))
def test_damaged_json_is_a_valid_genome_or_a_genome_error(name, seed, odd, damage):
    rng = random.Random(seed)
    raw = json.loads(EXAMPLES[name]().to_json())
    mutate(raw, rng, odd)
    text = json.dumps(raw).encode()
    for _ in range(damage - 3):
        at = rng.randrange(len(text))
        text = text[:at] + bytes([rng.randrange(256)]) * rng.randrange(3) + text[at + rng.randrange(3) :]
    with suppress(GenomeError):
        genome = Genome.from_json(text)
        assert Genome.from_json(genome.to_json()) == genome
        assert unit_table(genome).members.keys() == genome.shapes.keys()


def mutate(raw, rng, odd):
    """Walks down to a random place and replaces, removes, doubles or moves what is there."""
    place = raw
    while True:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            return
        key = rng.choice(list(keys))
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.85:
            place = place[key]
            continue
        action = rng.randrange(4)
        if action == 0:
            place[key] = odd
        elif action == 1:
            del place[key]
        elif isinstance(place, dict):
            place[f"{key}2" if action == 2 else str(odd)] = place[key]
        else:
            place.insert(rng.randrange(len(place)), place[key] if action == 2 else place.pop(key))
        return


def absurd(*rows):
    return msgspec.json.encode({"nodes": nodes(*rows)})


@pytest.mark.parametrize(
    "text",
    [
        absurd(("input1", Input((65536, 65536, 65536)))),
        absurd(("input1", Input((65536, 60, 60))), ("f1", Flatten(), "input1"), ("l1", Linear(65536), "f1")),
        absurd(("input1", Input((65536,))), ("l1", Linear(65536), "input1"), ("o1", Output(), "l1")),
        absurd(
            ("input1", Input((65536, 1, 1))),
            *[(f"c{i + 1}", Concat(), *[f"c{i}" if i else "input1"] * 1024) for i in range(9)],
        ),
        absurd(
            ("input1", Input((65536,))),
            *[(f"c{i + 1}", Concat(), *[f"c{i}" if i else "input1"] * 2) for i in range(9000)],
        ),
        absurd(("input1", Input((4, 65536, 1024))), ("g1", GlobalPool(), "input1"), ("o1", Output(), "g1")),
        '{"nodes": [' + '{"name":"a1","op":{"kind":"norm"},"inputs":["a1"]},' * 1_000_000 + "]}",
        "[" * (MAX_JSON_BYTES + 1),
    ],
    ids=lambda text: f"{len(text)} {text[:40]!r}",
)
def test_absurd_sizes_are_refused_before_anything_is_allocated(text):
    tracemalloc.start()
    with pytest.raises(GenomeError):
        Genome.from_json(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * min(len(text), MAX_JSON_BYTES) + 200_000


def test_long_text_is_refused_unread():
    with pytest.raises(GenomeError, match="genome of 4,194,305 characters: at most 4,194,304 are read"):
        Genome.from_json(" " * (MAX_JSON_BYTES + 1))


def test_genomes_are_immutable():
    genome = perceptron()
    with pytest.raises(AttributeError):
        genome.nodes = ()
    with pytest.raises(AttributeError):
        genome.nodes[0].name = "other1"


@pytest.mark.parametrize(
    "make",
    [
        lambda net: net.add(Conv(4, (2048,), padding=(1024,)), net.input),
        lambda net: net.add(Norm(eps=0.0), net.input),
        lambda net: net.add(Dropout(1.0), net.input),
        lambda net: net.add(Scale(1.0, float("inf")), net.input),
        lambda net: net.add(Conv(4, (3,), stride=(0,)), net.input),
    ],
)
def test_what_could_not_be_read_back_is_refused_at_once(make):
    net = Sketch(4, 3000)
    with pytest.raises((GenomeError, OpError)):
        net.end(make(net))


def test_no_convolution_has_no_groups():
    with pytest.raises(OpError, match="groups 0"):
        Conv(4, (3,), groups=0)


def test_equal_operations_of_other_types_are_told_apart():
    for bias in (1, True, 1, True):  # equal, and one JSON cannot be read back
        net = Sketch(4)
        x = net.add(Linear(3, bias=bias), net.input)
        if bias is True:
            assert net.finish(x)
        else:
            with pytest.raises(GenomeError, match="Expected `bool`"):
                net.finish(x)

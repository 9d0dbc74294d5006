"""The benchmark of the price list runs on a small network, and says what it found."""

import msgspec

from analysis.benchmarks.prices import PricesInfo, command


def test_prices_are_compared_with_what_comes_true(tmp_path, capsys):
    sizes = ["--examples", "64", "--training-examples", "640", "--units", "6", "--steps", "1", "--seeds", "1"]
    weights = tmp_path / "small.safetensors"
    command(["--network", "small", *sizes, "--out", str(tmp_path), "--weights", str(weights)])
    info = msgspec.json.decode((tmp_path / "prices-small.json").read_bytes(), type=PricesInfo)
    shown = capsys.readouterr().out
    kinds = {item.kind: item for item in info.inherited}
    assert kinds["prune units"].count == 6
    assert kinds["all but units"].count == sum(i.count for i in info.inherited[:-1]) - 6
    assert {item.kind for item in info.grown} >= {"add units", "all growths"}
    assert all(item.by_obd is None for item in info.grown)
    assert kinds["prune units"].by_obd == kinds["prune units"].spearman
    assert kinds["factorise"].by_obd != kinds["factorise"].spearman  # a few examples are measured
    assert info.cost is None
    assert all(item.kind in shown for item in (*info.inherited, *info.grown))
    assert weights.is_file()

import json
import re
import sys
from pathlib import Path

import pytest
import torch

import run
from populations import evolve
from populations.classics import FOUNDERS
from populations.publishing import export_survivor
from tests.small import small_config, small_founder, small_task

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
NUMBERS = [
    pytest.param(number, marks=pytest.mark.slow if re.search("torchvision|evolve", snippet) else ())
    for number, snippet in enumerate(SNIPPETS)
]


def test_the_two_commands_come_first():
    assert re.search(r"```\n(.*?)```", README, re.DOTALL)[1].splitlines() == [
        "pip install -e . && python run.py",
        "pip install -e '.[test]' && pytest",
    ]


@pytest.mark.parametrize("number", NUMBERS)
def test_snippets_run(number, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(compile(SNIPPETS[number], f"README snippet {number}", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_searches_are_short():
    own = README.partition("## Your own search")[2].partition("\n## ")[0]
    searches = re.findall(r"```python\n(.*?)```", own, re.DOTALL)
    assert len(searches) == 2
    for search in searches:
        assert sum(bool(line.strip()) for line in search.splitlines()) < 20
        assert not re.search(r"deap|joblib", search)


def test_pictures_exist():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert pictures
    assert all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)


def test_an_export_used_as_the_readme_says_has_the_reported_accuracy(tmp_path, monkeypatch):
    task = small_task()
    result = evolve(small_config(tmp_path / "run", generations=1, compare=False), task, small_founder())
    export_survivor(result.run_dir, "best", tmp_path / "DIR", onnx=False)
    block = re.search(r"```\n(sys\.path\.insert.*?)```", README, re.DOTALL)[1]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    room = {"sys": sys, "json": json, "torch": torch, "Path": Path, "images": task.test.inputs}
    try:
        exec(compile(block, "README", "exec"), room)
    finally:
        sys.modules.pop("model", None)
    best = max(result.front, key=lambda entry: entry.accuracy)
    accuracy = (room["logits"].argmax(1) == task.test.targets).double().mean().item()
    assert accuracy == pytest.approx(best.test_accuracy, abs=0.011)


def test_founders_that_the_readme_names_are_there():
    named = re.search(r"Founders by name: (.*?)\. Where", README, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", named)) == set(FOUNDERS)
    assert all(name in run.Arguments.__doc__ + Path(run.__file__).read_text() for name in FOUNDERS)

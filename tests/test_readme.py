import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_two_commands_come_first():
    assert re.search(r"```\n(.*?)```", README, re.DOTALL)[1].splitlines() == [
        "pip install -e . && python run.py",
        "pip install -e '.[test]' && pytest",
    ]


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
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

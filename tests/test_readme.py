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


def test_pictures_exist():
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", README)
    assert pictures
    assert all((Path(__file__).parents[1] / picture).is_file() for picture in pictures)

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import run
from evo_topo.cost import count_macs
from populations.lineage import load_run
from populations.presets import PRESETS
from populations.starting import begin
from tests.small import small_config, small_founder, small_task

ROOT = Path(run.__file__).parent
SMALL = (
    "--examples 256 --batch-size 32 --calibration-examples 128 --founder-examples 1000 "
    "--polish-examples 256 --generations 1 --parents 4 --offspring 4 "
    "--probe-examples 100 --accuracy-floor 0.3"
)
OPTIONS = (
    "--generations --parents --offspring --seed --workers --devices --minutes --objective --data-dir "
    "--run-dir --resume --dry-run --founder --weights --export --pick --to"
)


def stored_start(run_dir: Path) -> None:
    """What a run leaves before its founder is trained."""
    begin(run_dir, small_config(run_dir), small_task(), small_founder(), None)
    (run_dir / "config.json").write_text(small_config(run_dir).to_json())


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "run.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def test_help_names_every_option_and_loads_no_torch():
    code = "import sys, run\ntry: run.main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for option in OPTIONS.split():
        assert f"{option} " in result.stdout or f"{option}\n" in result.stdout, option
    assert result.stdout.endswith("False\n")


@pytest.mark.parametrize("option", ["--pick", "--to"])
def test_what_to_export_needs_a_run(option, capsys):
    assert run.main([option, "best"]) == 2
    assert "name the run with --export RUN" in capsys.readouterr().err


@pytest.mark.slow
def test_a_whole_run_from_the_command_line(tmp_path, capsys):
    def here(*arguments):
        """In this process, which has torch loaded: exit code and what was printed."""
        return run.main([*map(str, arguments)]), *capsys.readouterr()

    run_dir = tmp_path / "first"
    result = call("digits", *SMALL.split(), "--run-dir", run_dir)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0] == "evo_topo: evolving preset digits"
    assert any(line.startswith("evolving: generation 1/1  children 4/4  best 0.") for line in lines)
    front = json.loads((run_dir / "front.json").read_text())
    ids = {str(entry["id"]) for entry in front}
    table = [line.split() for line in lines if line.split()[:1] and line.split()[0] in ids]
    assert [row[1] for row in table] == [f"{entry['test_accuracy']:.4f}" for entry in front]
    assert f"run folder: {run_dir}" in lines
    for line in lines[-4:]:
        command = [sys.executable, *line.split()[1:]]
        figure = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert figure.returncode == 0, figure.stderr
        assert "wrote" in figure.stdout
    exported = here("--export", run_dir, "--to", tmp_path / "out")
    names = ("model.safetensors", "model.py", "model.pt2", "model.onnx")
    assert (exported[0], exported[2]) == (0, "")
    assert [line.split(":")[0] for line in exported[1].splitlines()] == [
        *[str(tmp_path / "out" / name) for name in names],
        str(tmp_path / "out"),
    ]
    resumed = here("--resume", "--run-dir", run_dir, "--founder", tmp_path / "out")
    message = "error: founder: the run to resume has one already; leave --founder and --weights out\n"
    assert (resumed[0], resumed[2]) == (2, message)
    planned = here("--dry-run", "--founder", tmp_path / "out")
    assert (planned[0], planned[2]) == (0, "")
    assert "founder: " in planned[1]


def test_dry_run_prints_the_plan_and_leaves_nothing(tmp_path):
    result = call("--dry-run", "--devices", "cpu,cpu", "--run-dir", tmp_path / "none", "--seed", 3)
    assert result.returncode == 0, result.stderr
    assert '"seed": 3' in result.stdout
    assert "897 train, 450 validation, 450 test examples" in result.stdout
    assert "1,503,232 MACs, 3,006,464 FLOPs, 75,434 parameters" in result.stdout
    assert result.stdout.endswith("devices: cpu, cpu\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist"], "invalid choice 'mnist'"),
        (["--generations", "0"], "generations: expected at least 1, got 0"),
        (["--learning-rate", "nan"], "learning_rate: expected a positive finite number"),
        (["--minutes", "-1"], "minutes: expected a positive number"),
        (["--devices", "cuda:99"], "there is no device 'cuda:99' here"),
        (["--resume"], "expected the folder of the run to resume"),
        (["--resume", "--run-dir", "no/such/run"], "no/such/run is no run folder"),
        (["cifar10", "--data-dir", "no/such/data"], "no/such/data"),
        (["--generatons", "3"], "--generatons"),
        (["--export", "no/such/run"], "no/such/run is no run folder"),
        (["--export", "no/such/run", "--dry-run"], "leave it out to export"),
        (["--founder", "resnet19", "--dry-run"], "founder 'resnet19': expected one of minimal, mlp"),
        (["--weights", "w.safetensors", "--dry-run"], "name the network that they belong to with --founder"),
        (["--founder", "vgg19", "--dry-run"], "at least 16 x 16, got inputs of shape (1, 8, 8)"),
    ],
)
def test_bad_requests_end_in_one_message_and_code_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    try:
        code = run.main(arguments)
    except SystemExit as stop:
        code = stop.code
    captured = capsys.readouterr()
    assert code == 2
    text = " ".join((captured.out + captured.err).replace("│", " ").split())
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("runs/*"))


def test_a_damaged_run_is_refused(tmp_path, capsys):
    stored_start(tmp_path)
    (tmp_path / "lineage.db").write_bytes(b"this is no database" * 100)
    assert run.main(["--resume", "--run-dir", str(tmp_path)]) == 2
    assert "cannot be opened: file is not a database" in capsys.readouterr().err


def test_defaults_come_from_the_preset_and_from_the_stored_run(tmp_path):
    assert run.parse([]).config == PRESETS["digits"].config
    assert run.parse(["fashion-mnist"]).config.recipe.flip
    assert run.parse(["--minutes", "3"]).config.generations is None
    assert run.parse(["--minutes", "3", "--generations", "5"]).config.generations == 5
    (tmp_path / "config.json").write_text(small_config(tmp_path, seed=9).to_json())
    resumed = run.parse(["--resume", f"--run-dir={tmp_path}", "--generations", "7"]).config
    assert (resumed.seed, resumed.generations) == (9, 7)
    assert run.parse(["--resume", "--run_dir", str(tmp_path)]).config.seed == 9
    again = ["--resume", f"--run-dir={tmp_path}", "--no-compare"]
    for _ in range(2):  # the second time it is as stored
        config = run.parse(again).config
        assert not config.compare
        (tmp_path / "config.json").write_text(config.to_json())
    (tmp_path / "config.json").write_text(small_config(tmp_path, minutes=2.0, generations=None).to_json())
    resumed = run.parse(["--resume", f"--run-dir={tmp_path}", "--generations", "7"]).config
    assert (resumed.minutes, resumed.generations) == (None, 7)


def test_the_plan_of_a_run_to_resume_has_its_own_founder(tmp_path, capsys):
    stored_start(tmp_path)
    assert run.main(["--dry-run", "--resume", "--run-dir", str(tmp_path)]) == 0
    plan = capsys.readouterr().out
    assert f"{count_macs(small_founder()):,} MACs" in plan
    assert "256 train, 128 validation, 100 test examples" in plan
    assert run.main(["--dry-run", "--run-dir", str(tmp_path)]) == 2
    assert "holds a run already" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_stops_and_what_follows_ends_as_if_nothing_had_happened(tmp_path):
    # a signal may be ignored where pytest runs in the background
    code = "import signal, sys, run; signal.signal(2, signal.default_int_handler); "
    code += "sys.exit(run.main(sys.argv[1:]))"
    options = ["digits", *SMALL.replace("--generations 1", "--generations 2").split()]
    command = [sys.executable, "-c", code, *options, "--run-dir", str(tmp_path / "a")]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as process:
        for line in process.stdout:
            if line.startswith("evolving: generation 1/2"):
                break
        os.killpg(process.pid, signal.SIGINT)  # all of the group, as a terminal does
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"go on with: python run.py --resume --run-dir {tmp_path / 'a'}" in err
    assert "Traceback" not in err, err
    resumed, whole = (
        call("--resume", "--run-dir", tmp_path / "a"),
        call(*options, "--run-dir", tmp_path / "b"),
    )
    assert (resumed.returncode, whole.returncode) == (0, 0)
    fronts = [json.loads((tmp_path / name / "front.json").read_text()) for name in "ab"]
    assert fronts[0] == fronts[1]


@pytest.mark.slow
def test_neither_hash_seed_nor_workers_change_the_lineage(tmp_path):
    for name, (seed, workers) in {"a": ("1", 1), "b": ("2", 6)}.items():
        command = [sys.executable, "run.py", "digits", *SMALL.split(), "--workers", str(workers)]
        command += ["--run-dir", str(tmp_path / name)]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    one, other = (load_run(tmp_path / name) for name in "ab")
    assert [(i.edit, i.genome, i.outcome.weights_sha256) for i in one] == [
        (i.edit, i.genome, i.outcome.weights_sha256) for i in other
    ]

import os
from types import SimpleNamespace

import joblib
import pytest
import torch

from populations import slots as slots_module
from populations.config import ConfigError
from populations.slots import Slots, free_device, is_service_running, resolve_devices


def test_who_holds_a_device_has_it_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(slots_module, "SLOT_DEADLINE", 0.1)
    slots = Slots(("cuda:0", "cuda:0", "cuda:1"), 1, tmp_path)
    with free_device(slots) as first, free_device(slots) as second:
        with free_device(slots) as third:
            assert sorted([first, second, third]) == ["cuda:0", "cuda:0", "cuda:1"]
            with pytest.raises(TimeoutError, match="no device"), free_device(slots):
                pass
        with free_device(slots) as again:
            assert again == third


def test_equal_devices_need_no_lock(tmp_path):
    with free_device(Slots(("cpu", "cpu"), 1, tmp_path)) as device:
        assert device == "cpu"
    assert not list(tmp_path.iterdir())


def test_resolve_devices():
    assert resolve_devices("cpu", 3, 1) == ("cpu",) * 3
    assert resolve_devices("cpu,cpu", None, 1) == ("cpu", "cpu")
    assert set(resolve_devices("cpu", None, 1)) == {"cpu"}
    with pytest.raises(ConfigError, match="no device 'cuda:77'"):
        resolve_devices("cpu,cuda:77", None, 1)


@pytest.mark.parametrize(
    ("gpus", "memory", "cores", "serviced", "each"),
    [
        (1, 80, 64, False, 4),
        (1, 80, 64, True, 8),
        (2, 80, 64, True, 8),
        (1, 10, 64, True, 2),
        (1, 2, 64, True, 1),
        (1, 80, 3, True, 3),
        (4, 80, 8, True, 2),
        (2, 80, 1, True, 1),
    ],
)
def test_gpus_are_listed_for_as_many_children_as_have_room(monkeypatch, gpus, memory, cores, serviced, each):
    """As far as it goes without one: what torch would say of the GPUs is made up."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    properties = SimpleNamespace(total_memory=memory * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    monkeypatch.setattr(slots_module, "is_service_running", lambda: serviced)
    assert resolve_devices("auto", None, 1) == tuple(f"cuda:{i}" for i in range(gpus)) * each


def test_the_service_runs_where_its_process_does(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert not is_service_running()
    written = tmp_path / "nvidia-cuda-mps-control.pid"
    for text, runs in ((str(os.getpid()), True), ("nonsense", False), (str(2**22 + 1), False)):
        written.write_text(text)
        assert is_service_running() is runs

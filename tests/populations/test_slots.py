import pytest

from populations import slots as slots_module
from populations.config import ConfigError
from populations.slots import Slots, free_device, resolve_devices


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

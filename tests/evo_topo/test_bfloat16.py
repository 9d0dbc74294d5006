import pytest
import torch

from evo_topo.bfloat16 import has_fast_bfloat16


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2": True}, False),
        ({"avx2": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
    ],
)
def test_bfloat16_is_used_where_the_processor_has_it(monkeypatch, found, expected) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert has_fast_bfloat16(torch.device("cpu")) is expected

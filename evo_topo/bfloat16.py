"""Whether bfloat16 pays on a device."""

import torch


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 pays on ``device``: on the CPU it needs AMX or AVX512-BF16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # an older torch does not tell, and then trains in float32
        found: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()
        return bool(found.get("amx_bf16") or found.get("avx512_bf16"))
    return False

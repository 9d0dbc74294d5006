"""A network as Python source that needs nothing but torch."""

from __future__ import annotations

import inspect
import re
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule

_HEAD = '''"""A network found by evo_topo; `load()` gives it with its weights. Needs nothing but torch."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

'''
_TAIL = '''

def load(path=Path(__file__).parent / "model.safetensors"):
    """The network with its weights, in evaluation mode."""
    data = bytearray(Path(path).read_bytes())  # length of the header, header, tensors end to end
    start = 8 + int.from_bytes(data[:8], "little")
    state = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            values = torch.frombuffer(data[first:last], dtype=DTYPES[entry["dtype"]])
            state[name] = values.reshape(entry["shape"])
    network = Network()
    network.load_state_dict(state)
    return network.eval()


DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

if __name__ == "__main__":
    print(load())
'''


def write_source(model: GraphModule) -> str:
    """Python source of a network: a class ``Network`` and a function ``load``.

    Args:
        model: A network made by `build`.

    Returns:
        A module that imports only torch and the standard library. The state of its network has the names of
        the model's own.
    """
    parts = dict(model.named_children())
    classes = "".join(f"\n{inspect.getsource(kind)}\n" for kind in _own_classes(model))
    lines = [f"        self.{name} = {_constructor(part)}" for name, part in parts.items()]
    forward = model.graph.python_code("self").src
    # Values go as soon as nothing reads them: held to the end they cost a tenth of the time.
    forward = re.sub(r";  (\w+(?: = \w+)*) = None", _deletion, forward).strip().replace(";  ", "\n    ")
    body = "\n".join(f"    {line}".rstrip() for line in forward.splitlines())
    init = "    def __init__(self):\n        super().__init__()\n" + "\n".join(lines)
    return f"{_HEAD}{classes}\nclass Network(nn.Module):\n{init}\n\n{body}\n{_TAIL}"


def _deletion(freed: re.Match[str]) -> str:
    return "\n    del " + ", ".join(freed[1].split(" = "))


def _own_classes(model: nn.Module) -> list[type]:
    """Classes of its modules that are not torch's, bases first."""
    kinds = dict.fromkeys(kind for part in model.modules() for kind in reversed(type(part).__mro__))
    return [kind for kind in kinds if kind.__module__.startswith("evo_topo.")]


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Arguments of a class by name: those of the torch class that it derives from, and its own."""
    base = next(base for base in kind.__mro__ if base.__module__.startswith("torch."))
    found = {**inspect.signature(base).parameters, **inspect.signature(kind).parameters}
    unused = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return {n: p for n, p in found.items() if p.kind not in unused and n not in ("device", "dtype")}


def _constructor(module: nn.Module) -> str:
    """The call that makes a module anew, with the arguments that differ from their defaults."""
    kind = type(module)
    arguments = []
    for name, parameter in _parameters(kind).items():
        value = getattr(module, name, None)
        if name == "bias":
            value = value is not None
        if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
            arguments.append(_literal(value))
        elif value != parameter.default:
            arguments.append(f"{name}={_literal(value)}")
    prefix = "nn." if kind.__module__.startswith("torch.") else ""
    return f"{prefix}{kind.__name__}({', '.join(arguments)})"


def _literal(value: Any) -> str:
    return repr(value.tolist() if isinstance(value, Tensor) else value)

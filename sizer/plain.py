"""Plain values as tensors, for a safetensors file: numbers, texts, containers, tensors, and nothing that runs code."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from typing import Any

import torch
from torch import Tensor

_MAPPINGS: dict[str, Any] = {"dict": dict, "counter": Counter, "ordered": OrderedDict}
_LISTS: dict[str, Any] = {"list": list, "tuple": tuple}


def pack(name: str, value: Any) -> dict[str, Tensor]:
    """A value as tensors: `name` holds its JSON as bytes, `name-0` and so on the tensors within it.

    Raises:
        TypeError: Something in it is none of these.
    """
    tensors: list[Tensor] = []
    text = json.dumps(_plain(value, tensors)).encode()
    held = {f"{name}-{at}": tensor.detach().cpu() for at, tensor in enumerate(tensors)}
    return {name: torch.frombuffer(bytearray(text), dtype=torch.uint8), **held}


def unpack(name: str, kept: dict[str, Tensor]) -> Any:
    """The value that `pack` was given, on the CPU.

    Raises:
        ValueError: What is kept there is something else.
    """
    try:
        return _value(json.loads(kept[name].numpy().tobytes()), name, kept)
    except (KeyError, TypeError, IndexError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _plain(value: Any, tensors: list[Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    for tag, kind in _LISTS.items():
        if type(value) is kind:
            return {tag: [_plain(each, tensors) for each in value]}
    for tag, kind in _MAPPINGS.items():
        if type(value) is kind:
            return {tag: [[_plain(key, tensors), _plain(each, tensors)] for key, each in value.items()]}
    raise TypeError(f"it holds a {type(value).__name__}")


def _value(plain: Any, name: str, kept: dict[str, Tensor]) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((tag, content),) = plain.items()
    if tag == "tensor":
        return kept[f"{name}-{content}"]
    if tag in _LISTS:
        return _LISTS[tag](_value(each, name, kept) for each in content)
    return _MAPPINGS[tag]({_value(key, name, kept): _value(each, name, kept) for key, each in content})

"""What the trials of a sweep share, carried by Ray once a node: the data as arrays, the user's own network as text.

Workers get arrays that lie in memory that all processes of their machine share, and that nobody may write to. Where
there are no folds it is the data itself, ready to train on. With folds it is the rows as they were read: every fold
would be as large as all of them, in float32, which is four times the bytes of an image; so a worker cuts the fold that
it trains on, and keeps one. The data's own function runs in the driver alone: what it reads need not lie on the other
machines, and all trials train on the same rows even if it draws them.
"""

from __future__ import annotations

import secrets
import warnings
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sizer import datasets
from sizer.datasets import PARTS, Data, Whole
from sizer.datasets.raw import KEYS, Raw
from sizer.usercode import Code
from studies.plan import Plan

Luggage = dict[str, Any]
_TENSORS = tuple(f"{kind}_{part}" for part in PARTS for kind in ("x", "y"))


def pack(plan: Plan, whole: Whole, data: Data) -> Luggage:
    """What the workers need, as plain values and arrays.

    Args:
        plan: The evaluation.
        whole: Its data as it was read.
        data: The same, cut and standardised.
    """
    code = plan.code("network")
    packed: Luggage = {"token": secrets.token_hex(8), "code": code.to_json() if code is not None else None}
    if plan.folds is None:
        values = {field.name: getattr(data, field.name) for field in fields(data)}
        return packed | {"data": {**values, **{name: _array(values[name]) for name in _TENSORS}}}
    cut = {"validation": plan.validation, "seed": plan.seed, "folds": plan.folds, "samples": plan.samples}
    arrays = {key: getattr(whole.raw, key) for key in KEYS}
    return packed | {"whole": {"name": whole.name, "called": whole.called, "raw": arrays}, "cut": cut}


def size(packed: Luggage) -> int:
    """Bytes of its arrays."""
    held = packed["data"] if "data" in packed else packed["whole"]["raw"]
    return sum(value.nbytes for value in held.values() if isinstance(value, np.ndarray))


def data_of(packed: Luggage, fold: int) -> Data:
    """The data to train on; of a fold, the one cut last in this process is kept."""
    if "data" in packed:
        return Data(**{**packed["data"], **{name: _tensor(packed["data"][name]) for name in _TENSORS}})
    if fold not in (held := _held(packed["token"])):
        held.clear()
        whole = Whole(**{**packed["whole"], "raw": Raw(**packed["whole"]["raw"])})
        held[fold] = datasets.part(whole, fold=fold, **packed["cut"])
    return held[fold]


def code_of(packed: Luggage) -> Code | None:
    """The user's own network; None where the plan names one of ours."""
    return _code(packed["code"]) if packed["code"] is not None else None


@lru_cache(maxsize=1)
def _held(token: str) -> dict[int, Data]:
    return {}


@lru_cache(maxsize=8)
def _code(text: str) -> Code:
    return Code.from_json(text)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = tensor.detach().contiguous().numpy()
    return array


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    with warnings.catch_warnings():
        # That nothing may write to it: nothing does, `sizer.fit` hands out copies of its rows.
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)

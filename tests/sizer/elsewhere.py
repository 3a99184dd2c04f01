"""A network outside of torch: exported to ONNX, and run by onnxruntime."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnxruntime
import torch
from torch import Tensor


def in_onnx(program: torch.export.ExportedProgram, x: Tensor, folder: Path) -> Tensor:
    """What onnxruntime gives for inputs of an exported network."""
    file = folder / "network.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the exporter's own dependencies
        warnings.simplefilter("ignore", FutureWarning)
        torch.onnx.export(program, (), str(file), dynamo=True, verbose=False, optimize=False)
    (given,) = onnxruntime.InferenceSession(str(file)).run(None, {"input": x.numpy()})
    return torch.from_numpy(given)

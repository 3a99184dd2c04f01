"""A network as ONNX."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor

from sizer import Architecture, usercode
from sizer.architecture import fill
from sizer.errors import InputError


def exported(architecture: Architecture, weights: dict[str, Tensor]) -> bytes:
    """The network as an ONNX file: one input `input` of any number of samples, one output `output`.

    Raises:
        InputError: It is a network of one's own, whose code this process does not run; or it does not fit the weights.
    """
    if usercode.is_named(architecture.network):
        raise InputError(
            f"{architecture.network} is a function of one's own, which the server does not run: take architecture and"
            " weights, and torch.onnx.export(sizer.load(FOLDER), ...)"
        )
    module = fill(architecture, weights, "the weights").eval()
    example = torch.zeros(2, *architecture.input_shape)
    with tempfile.TemporaryDirectory(prefix="sizer-onnx-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter's own dependencies
        file = Path(folder, "network.onnx")
        program = torch.export.export(module, (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        torch.onnx.export(
            program, (), str(file), dynamo=True, verbose=False, external_data=False,
            input_names=["input"], output_names=["output"],
        )  # fmt: skip
        return file.read_bytes()

"""What of the contracts is left to `make soak`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

LARGE = {"densenet", "mobilenetv2"}
"""Networks whose many layers take as long as most others together."""
EXPORTED = {"mlp", "lenet", "das-conv", "vit"}
"""Networks whose export to ONNX, which takes seconds each, is not left to it."""


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Marks the cases of large networks."""
    for item in items:
        cases = getattr(item, "callspec", None)
        network = (cases.params.get("network") or cases.params.get("name")) if cases is not None else None
        exports = "is_exported" in item.name and network not in EXPORTED
        if network is not None and (network in LARGE or exports):
            item.add_marker(pytest.mark.soak)

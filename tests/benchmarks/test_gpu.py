"""The GPU benchmark runs where there is no GPU, and needs neither Ray nor a database."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.soak
def test_its_table_on_a_cpu(tmp_path: Path) -> None:
    drawn = np.random.default_rng(0)
    parts = {"train": 900, "test": 100}
    arrays = {f"x_{part}": drawn.integers(0, 256, (count, 28, 28), np.uint8) for part, count in parts.items()}
    arrays |= {f"y_{part}": drawn.integers(0, 10, count) for part, count in parts.items()}
    np.savez(tmp_path / "fashion_mnist.npz", **arrays)
    words = ["--device", "cpu", "--trials", "2", "--epochs", "1", "--widths", "20", "--alone", "1"]
    command = "import sys; sys.modules.update(dict.fromkeys(('ray', 'optuna', 'sqlalchemy')));" \
        f"from tests.benchmarks.gpu import main; sys.exit(main({words}))"  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, env={**os.environ, "SIZER_DATA": str(tmp_path)},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert [row[0].removeprefix("| ") for row in rows] == ["shrinknets", "fixed", "fixed-l2"]
    for row in rows:
        assert row[1:3] == ["2", "1"]
        assert float(row[3]) > 0
        assert float(row[5]) >= 0
        assert 0 < float(row[6].rstrip(" %")) < 100

"""The 15-puzzle as regression: a state in, the fewest moves to the goal out. Made on this machine, in two minutes.

Stands for the set of Cahlik and Surynek (Near optimal solving of the (N2-1)-puzzle using heuristics based on artificial
neural networks, 2019), which dynamic auto-sizing is measured on (Cahlik, Kordik and Cepek, Fig. 1) and which is not
public. States here end random walks of 1 to 60 moves from the goal, none a move taken back; each state occurs once, so
none is both trained and tested. The target is the exact cost, by the optimal solver of `sizer.datasets.sliding`: no
bound, no estimate, and at most the walk's length. Random states of the whole puzzle are harder (53 moves on the mean,
80 at most) and take this solver seconds to minutes each.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sizer.datasets import sliding
from sizer.datasets.cache import kept
from sizer.datasets.raw import Array, Raw
from sizer.errors import DataError

STATES = 15_000
LONGEST = 60  # moves of a walk
SEED = 15
TEST_SHARE = 0.2


def read(folder: Path) -> Raw:
    """Read 12,000 + 3,000 states (N, 256), tile on cell one-hot, and costs (N,), made and kept the first time."""
    return kept("puzzle15", folder, lambda part: make())


def make(states: int = STATES, longest: int = LONGEST, solver: sliding.Solver | None = None) -> Raw:
    """Draw states, solve them and part them into training and test. A bar on stderr tells how far it is.

    Args:
        states: How many in all.
        longest: The longest walk, moves.
        solver: Another solver than the one of `sliding.GROUPS`.
    """
    from tqdm import tqdm  # type: ignore[import-untyped]  # it ships no types

    boards = draw(states, longest)
    with tqdm(total=states, unit="state", desc="solving 15-puzzles, once", mininterval=1.0) as bar:
        costs = (solver or sliding.Solver()).costs(boards, bar.update).astype(np.float32)
    x, tested = one_hot(boards), round(states * TEST_SHARE)
    return Raw(x[tested:], costs[tested:], x[:tested], costs[:tested])


def draw(states: int, longest: int) -> Array:
    """Draw different states, uint8 (N, 16), at the ends of walks of 1 to `longest` moves; always the same ones.

    Raises:
        DataError: Such walks do not end in so many different states.
    """
    rng = np.random.default_rng(SEED)
    boards = sliding.walk(rng.integers(1, longest + 1, 2 * states), rng)
    first = np.sort(np.unique(boards, axis=0, return_index=True)[1])
    if len(first) < states:
        raise DataError(f"walks of {longest} moves end in {len(first)} states, not {states}; allow longer walks")
    # Near states come up early, before they are repetitions: shuffled, or any part cut off would be another mix.
    drawn: Array = boards[rng.permutation(first[:states])]
    return drawn


def one_hot(boards: Array) -> Array:
    """Boards (N, 16) as uint8 (N, 256): for each cell in turn 16 values, one for each tile, the blank's first."""
    return np.eye(16, dtype=np.uint8)[boards].reshape(len(boards), -1)

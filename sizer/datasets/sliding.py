"""An optimal solver of the 15-puzzle: IDA* (Korf 1985) with additive pattern databases (Korf and Felner 2002).

A board is a row of 16: the tile on each cell, row by row, 0 where the blank is. On the goal tile t lies on cell t - 1
and the blank on the last cell.

Within, a state is three words of 16 nibbles: the tile on each cell, the cell of each tile, and the cell of each tile in
the picture reflected in the main diagonal. All three are of tiles renumbered so that a group's follow each other: the
cells of a group are then one piece of the second word, and this piece is the address of their bound.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from sizer.datasets.raw import Array

Words = NDArray[np.uint64]
Ints = NDArray[np.int64]

# Three groups of five near each other on the goal: 524,160 ways to lie each, bounds of 41 moves on the mean.
GROUPS = ((1, 2, 5, 6, 9), (3, 4, 7, 8, 12), (10, 11, 13, 14, 15))
MOVES = 4  # up, left, right, down; 3 - move takes it back
OFF = 16  # no cell: the move leaves the board

_BLOCK = 1 << 14  # nodes expanded at a time: small enough to stay in a core's cache
_CELLS = np.arange(16)
_REFLECTED = _CELLS % 4 * 4 + _CELLS // 4
_TURNED = _REFLECTED.astype(np.uint64)
_FOUR, _LOW = np.uint64(4), np.uint64(15)  # a nibble's bits, and the lowest nibble
_ROOT_MOVE = 9  # of a state that no move led to: takes back none


def _neighbours() -> Ints:
    """The cell that each move takes the blank to, (16, 4); OFF beyond the edge."""
    row, column = np.divmod(_CELLS, 4)
    inside = np.stack([row > 0, column > 0, column < 3, row < 3], 1)
    return np.where(inside, _CELLS[:, None] + [-4, -1, 1, 4], OFF)


NEIGHBOURS = _neighbours()


def walk(lengths: Ints, rng: np.random.Generator) -> Array:
    """Walk from the goal by random moves, none of which takes the one before back.

    Args:
        lengths: Moves of each walk, (N,).
        rng: What draws them.

    Returns:
        The boards where the walks end, uint8 (N, 16).
    """
    boards = np.tile(np.roll(np.arange(16, dtype=np.uint8), -1), (len(lengths), 1))
    last = np.full(len(lengths), _ROOT_MOVE)
    for step in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > step)
        blank = boards[rows].argmin(1)
        allowed = (NEIGHBOURS[blank] != OFF) & (np.arange(MOVES) != 3 - last[rows, None])
        move = np.where(allowed, rng.random(allowed.shape), -1.0).argmax(1)
        to = NEIGHBOURS[blank, move]
        boards[rows, blank] = boards[rows, to]
        boards[rows, to] = 0
        last[rows] = move
    return boards


def bounds(goal: Sequence[int]) -> NDArray[np.int8]:
    """Count, for each way a group of tiles can lie, the fewest moves of these tiles that bring them to their goal.

    Moves of other tiles are free, so the counts of groups without a common tile add up to a bound that no solution
    goes below.

    Args:
        goal: The cells of the group's n tiles on the goal.

    Returns:
        The counts (16**n,) by the tiles' cells as nibbles, the first tile's lowest; -1 where two share a cell.
    """
    tiles = [4 * (i + 1) for i in range(len(goal))]  # where each one's nibble is; the blank's is the lowest
    found = np.full(16 ** len(goal), -1, np.int8)
    seen = np.zeros(16 ** (len(goal) + 1), bool)
    level = np.array([15 + sum(cell << at for cell, at in zip(goal, tiles, strict=True))], np.int32)
    count = 0
    while len(level):
        seen[level] = True
        paid: list[Array] = []
        while len(level):
            ways = level >> 4
            found[ways[found[ways] < 0]] = count
            free, cost = _moved(level, tiles)
            paid.append(cost)
            level = np.unique(free[~seen[free]])
            seen[level] = True
        ahead = np.concatenate(paid)
        level = np.unique(ahead[~seen[ahead]])
        count += 1
    return found


def _moved(states: Array, tiles: Sequence[int]) -> tuple[Array, Array]:
    """All states one move on: those where another tile moved, and those where one of the group did."""
    free, cost = [], []
    for move in range(MOVES):
        to = NEIGHBOURS.astype(np.int32)[states & 15, move]
        before, to = states[to != OFF], to[to != OFF]
        blank = before & 15
        after = before - blank + to
        own = np.zeros(len(before), bool)
        for at in tiles:
            hit = before >> at & 15 == to
            after += np.where(hit, (blank - to) << at, 0)
            own |= hit
        free.append(after[~own])
        cost.append(after[own])
    return np.concatenate(free), np.concatenate(cost)


class Solver:
    """Finds the fewest moves to the goal.

    Args:
        groups: The 15 tiles in groups; the larger, the fewer nodes are searched and the longer the tables take
            (16**(n+1) states of a group of n).
    """

    def __init__(self, groups: Sequence[Sequence[int]] = GROUPS) -> None:
        tiles = np.array([0, *(tile for group in groups for tile in group)])
        self.number = np.argsort(tiles)
        """The new number of each tile."""
        self.twin = self.number[np.append(0, _REFLECTED[tiles[1:] - 1] + 1)].astype(np.uint64)
        """By new number: the tile that takes this one's place in the reflected picture."""
        self.tables: list[tuple[np.uint64, np.uint64, NDArray[np.int8]]] = []
        start = 4
        for group in groups:
            table = bounds([tile - 1 for tile in group])
            self.tables.append((np.uint64(start), np.uint64(len(table) - 1), table))
            start += 4 * len(group)

    def costs(self, boards: Array, report: Callable[[int], object] | None = None, chunk: int = 500) -> Ints:
        """Find the fewest moves from each board to the goal.

        Args:
            boards: uint8 (N, 16), each of which can be solved.
            report: Called with the number of boards solved since it was called last.
            chunk: Boards searched together.

        Returns:
            The moves, (N,).
        """
        costs = np.zeros(len(boards), np.int64)
        for start in range(0, len(boards), chunk):
            part = boards[start : start + chunk]
            costs[start : start + chunk] = self._deepen(self._words(part))
            if report is not None:
                report(len(part))
        return costs

    def bound(self, cells: Words) -> NDArray[np.int16]:
        """The sum of the groups' bounds, (N,), for words of the cell of each tile."""
        total = np.zeros(len(cells), np.int16)
        for start, mask, table in self.tables:
            total += table[(cells >> start & mask).astype(np.int64)]
        return total

    def _words(self, boards: Array) -> Words:
        """Boards as the three words, (3, N)."""
        on = self.number[boards].astype(np.uint64)
        cell = np.arange(16, dtype=np.uint64)
        return np.stack(
            [
                (on << _FOUR * cell).sum(1, dtype=np.uint64),
                (cell << _FOUR * on).sum(1, dtype=np.uint64),
                (_TURNED << _FOUR * self.twin[on]).sum(1, dtype=np.uint64),
            ]
        )

    def _deepen(self, words: Words) -> Ints:
        """Search all boards to the limit of each, and raise it by two for those not solved: moves' parity is fixed."""
        limits = np.maximum(self.bound(words[1]), self.bound(words[2])).astype(np.int64)
        open_ = limits > 0
        while open_.any():
            self._search(words, limits, open_)
            limits[open_] += 2
        return limits

    def _search(self, words: Words, limits: Ints, open_: NDArray[np.bool_]) -> None:
        """Search depth first, a block of nodes at a time; boards solved within their limit are marked in `open_`.

        A block is the three words of its nodes, (3, n), and their moves made, last move and board, (3, n).
        """
        boards = np.flatnonzero(open_)
        stack = [(words[:, boards], np.stack([np.zeros_like(boards), np.full_like(boards, _ROOT_MOVE), boards]))]
        while stack:
            nodes, ways = stack.pop()
            while stack and len(ways[0]) < _BLOCK // 2:
                more, its = stack.pop()
                nodes, ways = np.concatenate([nodes, more], 1), np.concatenate([ways, its], 1)
            if len(ways[0]) > _BLOCK:
                stack.append((nodes[:, _BLOCK:], ways[:, _BLOCK:]))
                nodes, ways = nodes[:, :_BLOCK], ways[:, :_BLOCK]
            live = open_[ways[2]]
            children = [self._children(nodes[:, live], ways[:, live], move, limits, open_) for move in range(MOVES)]
            grown = tuple(np.concatenate(parts, 1) for parts in zip(*children, strict=True))
            if grown[0].size:
                stack.append((grown[0], grown[1]))

    def _children(
        self, nodes: Words, ways: Ints, move: int, limits: Ints, open_: NDArray[np.bool_]
    ) -> tuple[Words, Ints]:
        """The nodes one move on that may still be solved within their limit."""
        to = NEIGHBOURS.astype(np.uint64)[(nodes[1] & _LOW).astype(np.int64), move]
        may = np.flatnonzero((to != OFF) & (ways[1] != 3 - move))
        (on, cells, turned), to = nodes[:, may], to[may]
        made, board = ways[0, may] + 1, ways[2, may]
        blank = cells & _LOW
        tile = on >> _FOUR * to & _LOW
        cells = _swapped(cells, tile, blank, to)
        bound = self.bound(cells)
        near = made + bound <= limits[board]
        open_[board[near & (bound == 0)]] = False
        # The reflected picture bounds as well; it is looked at only where the picture itself does not end the search.
        keep = np.flatnonzero(near & (bound > 0))
        turned = _swapped(turned[keep], self.twin[tile[keep]], _TURNED[blank[keep]], _TURNED[to[keep]])
        keep = keep[near := made[keep] + self.bound(turned) <= limits[board[keep]]]
        on = on[keep] - (tile[keep] << _FOUR * to[keep]) + (tile[keep] << _FOUR * blank[keep])
        ways = np.stack([made[keep], np.full(len(keep), move), board[keep]])
        return np.stack([on, cells[keep], turned[near]]), ways


def _swapped(cells: Words, tile: Words, blank: Words, to: Words) -> Words:
    """Words of the cell of each tile, after `tile` on the cell `to` and the blank have changed places."""
    return cells - blank + to + (blank << _FOUR * tile) - (to << _FOUR * tile)

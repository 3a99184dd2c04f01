"""The 15-puzzle: the solver's costs are the fewest moves, and what is made of them can be trained on."""

import numpy as np
import pytest

from sizer import datasets
from sizer.datasets import puzzle15, sliding
from sizer.errors import DataError

GOAL = np.roll(np.arange(16, dtype=np.uint8), -1)
# Fifteen tiles in groups of three: tables of 16**4 states, made at once, and a weaker bound.
TRIPLES = ((1, 2, 5), (3, 4, 8), (6, 7, 11), (9, 10, 13), (12, 14, 15))


@pytest.fixture(scope="module")
def solver():
    return sliding.Solver(TRIPLES)


def breadth_first(depth):
    """Every state up to so many moves from the goal: board -> moves. By its own rules, on tuples."""
    found = {tuple(GOAL.tolist()): 0}
    level = list(found)
    for moves in range(1, depth + 1):
        ahead = []
        for board in level:
            at = board.index(0)
            for to in range(16):
                if abs(at // 4 - to // 4) + abs(at % 4 - to % 4) == 1:
                    new = list(board)
                    new[at], new[to] = new[to], 0
                    if tuple(new) not in found:
                        found[tuple(new)] = moves
                        ahead.append(tuple(new))
        level = ahead
    return found


def solvable(board):
    """Parity of the permutation of all sixteen and of the blank's way home are the same."""
    inversions = sum(board[i] > board[j] for i in range(16) for j in range(i + 1, 16) if board[i] and board[j])
    return (inversions + 3 - int(np.argmin(board)) // 4) % 2 == 0


def test_costs_are_those_of_breadth_first_search(solver):
    found = breadth_first(11)
    boards = np.array(list(found), np.uint8)
    assert len(boards) > 4000
    assert solver.costs(boards).tolist() == list(found.values())


def test_bounds_never_exceed_the_cost_and_reach_it_for_few_moves(solver):
    found = breadth_first(9)
    words = solver._words(np.array(list(found), np.uint8))
    costs = np.array(list(found.values()))
    for cells in words[1:]:
        assert (solver.bound(cells) <= costs).all()
        assert (solver.bound(cells) == costs).mean() > 0.5


@pytest.mark.parametrize(
    ("tiles", "cost"),
    [
        ((0, 1, 9, 7, 11, 13, 5, 3, 14, 12, 4, 2, 8, 6, 10, 15), 42),  # 79
        ((14, 1, 9, 6, 4, 8, 12, 5, 7, 2, 3, 0, 10, 11, 13, 15), 45),  # 12
    ],
)
def test_two_of_korfs_hundred_random_states_cost_what_he_published(solver, tiles, cost):
    # Depth-first iterative-deepening, 1985, Table 1. His goal has the blank first: ours turned by half.
    board = np.array([(16 - tile) % 16 for tile in reversed(tiles)], np.uint8)
    assert solver.costs(board[None]).tolist() == [cost]


def test_costs_of_deep_states_do_not_depend_on_the_groups_and_fit_the_walk(solver):
    lengths = np.arange(20, 36)
    boards = sliding.walk(lengths, np.random.default_rng(3))
    other = sliding.Solver(((1, 5, 9), (2, 3, 4), (6, 7, 8), (10, 11, 12), (13, 14, 15)))
    costs = solver.costs(boards)
    assert costs.tolist() == other.costs(boards, chunk=3).tolist()
    assert (costs <= lengths).all()
    assert (costs % 2 == lengths % 2).all()
    assert costs.max() > 24


def test_costs_of_neighbours_differ_by_one(solver):
    boards = sliding.walk(np.full(40, 24), np.random.default_rng(4))
    moved = boards.copy()
    for board in moved:
        at = int(board.argmin())
        to = at - 1 if at % 4 else at + 1
        board[[at, to]] = board[[to, at]]
    assert set(np.abs(solver.costs(boards) - solver.costs(moved)).tolist()) == {1}


def test_walks_end_in_solvable_states_and_take_no_move_back():
    boards = sliding.walk(np.arange(1, 200), np.random.default_rng(5))
    assert (np.sort(boards, 1) == np.arange(16)).all()
    assert all(solvable(board.tolist()) for board in boards)
    two = sliding.walk(np.full(300, 2), np.random.default_rng(6))
    assert not (two == GOAL).all(1).any()


def test_near_states_are_spread_evenly_over_what_is_drawn():
    near = (sliding.Solver(TRIPLES).costs(puzzle15.draw(2000, 16)) <= 8).reshape(4, 500).mean(1)
    assert near.min() > 0.05
    assert near.max() - near.min() < 0.08


def test_what_is_made_is_the_same_each_time_and_no_state_is_tested_that_is_trained(solver):
    first, again = (puzzle15.make(300, 20, solver) for _ in range(2))
    assert (first.x_train == again.x_train).all()
    assert (first.y_test == again.y_test).all()
    assert (len(first.x_train), len(first.x_test)) == (240, 60)
    x = np.concatenate([first.x_train, first.x_test])
    assert len(np.unique(x, axis=0)) == 300
    assert (x.reshape(300, 16, 16).sum(1) == 1).all()
    assert (x.reshape(300, 16, 16).sum(2) == 1).all()
    y = np.concatenate([first.y_train, first.y_test])
    boards = x.reshape(300, 16, 16).argmax(2)
    assert y.tolist() == solver.costs(boards.astype(np.uint8)).tolist()
    assert 1 <= y.min() < y.max() <= 20


def test_it_is_made_once_and_then_read(tmp_path, monkeypatch, solver):
    made = puzzle15.make(200, 16, solver)
    calls = []
    monkeypatch.setattr(puzzle15, "make", lambda: calls.append(1) or made)
    first, second = (datasets.load("puzzle15", folder=tmp_path) for _ in range(2))
    assert calls == [1]
    assert [file.name for file in tmp_path.iterdir()] == ["puzzle15.npz"]
    assert first.task == "regression"
    assert first.input_shape == (256,)
    assert (first.x_train == second.x_train).all()


def test_a_kept_file_that_is_corrupt_is_to_be_made_again(tmp_path):
    (tmp_path / "puzzle15.npz").write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"is not a whole \.npz file; delete it, and it is made again"):
        datasets.load("puzzle15", folder=tmp_path)

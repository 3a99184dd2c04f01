"""Which networks are stacked together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise


def grouped(
    widths: Sequence[Mapping[str, int]], parameters_of: Callable[[Mapping[str, int]], int], overhead: float
) -> list[list[int]]:
    """Stacks of members, such that padding costs less than it saves.

    A stack costs as many parameters as its members have when padded to the widest in each layer, and ``overhead``
    besides. Members of equal widths share a stack; then, of all neighbours in size, those are merged that save most,
    until nothing saves any more.

    Args:
        widths: layer -> width of each member, of the same layers.
        parameters_of: how many parameters a network of such widths has.
        overhead: what one more stack costs, in parameters; 0 where nobody is to be padded, as on a CPU.

    Returns:
        The members of each stack, by their indices and in their order; the smallest networks first.
    """
    equal: dict[tuple[tuple[str, int], ...], list[int]] = {}
    for at, own in enumerate(widths):
        equal.setdefault(tuple(sorted(own.items())), []).append(at)
    groups = [(dict(own), parameters_of(dict(own)), members) for own, members in equal.items()]
    groups.sort(key=lambda group: (group[1], group[2]))
    while len(groups) > 1:
        merged = [_merged(left, right, parameters_of) for left, right in pairwise(groups)]
        apart = [_cost(left) + _cost(right) + overhead for left, right in pairwise(groups)]
        saved = [cost - _cost(both) for cost, both in zip(apart, merged, strict=True)]
        best = max(range(len(saved)), key=saved.__getitem__)
        if saved[best] <= 0:
            break
        groups[best : best + 2] = [merged[best]]
    return [sorted(members) for _, _, members in groups]


_Group = tuple[dict[str, int], int, list[int]]
"""The widths that its members are padded to, the parameters of one such member, and who they are."""


def _merged(left: _Group, right: _Group, parameters_of: Callable[[Mapping[str, int]], int]) -> _Group:
    widest = {layer: max(width, right[0][layer]) for layer, width in left[0].items()}
    return widest, parameters_of(widest), left[2] + right[2]


def _cost(group: _Group) -> int:
    return group[1] * len(group[2])

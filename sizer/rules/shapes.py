"""Rules of operations that only move, join, part or repeat entries."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from sizer import dimensions
from sizer.dimensions import Dim, Shape
from sizer.follower import Follower, argument, operation, place, shape, sizes

HEADS = ("num_heads", "n_heads", "heads", "nhead", "n_head", "num_attention_heads", "groups")
ALL_HEADS = ("attn_dim", "inner_dim", "all_head_size")
"""How modules call the number that they cut a dimension into, and that of all heads together."""


def view(follower: Follower, node: Node) -> Shape:
    """Reshape, flatten and the like: the same entries in the same order."""
    result = dimensions.view(shape(node.args[0]), sizes(node))
    for dim in result:
        for name in HEADS + ALL_HEADS:
            follower.follows(node, name, dim)
    return result


def permute(follower: Follower, node: Node) -> Shape:
    x = list(shape(node.args[0]))
    order: Any = node.args[1:]
    if operation(node) == "permute":
        return tuple(x[at] for at in order[0])
    if operation(node) == "movedim" and not isinstance(order[0], int):
        return _frozen(follower, node)
    if operation(node) == "movedim":
        x.insert(order[1] % len(x), x.pop(order[0]))
        return tuple(x)
    if operation(node) == "numpy_T":
        return tuple(reversed(x))
    first, second = order or ((-2, -1) if operation(node) == "mT" else (0, 1))
    x[first], x[second] = x[second], x[first]
    return tuple(x)


def cat(follower: Follower, node: Node) -> Shape:
    """Units of several tensors one after the other; each keeps a width of its own."""
    given: Any = node.args[0]
    parts = [shape(part) for part in given if sizes(part) != [0]]
    rank = len(parts[0])
    at: Any = argument(node, 1, "dim", 0)
    result: list[Dim] = []
    for axis in range(rank):
        dims = [part[axis] for part in parts]
        if axis == at % rank:
            result.append(dimensions.cat(dims))
            continue
        for other in dims[1:]:
            dimensions.unify(dims[0], other)
        result.append(dims[0])
    return tuple(result)


def stack(follower: Follower, node: Node) -> Shape:
    parts: Any = node.args[0]
    first = shape(parts[0])
    for other in parts[1:]:
        for one, two in zip(first, shape(other), strict=True):
            dimensions.unify(one, two)
    at: Any = argument(node, 1, "dim", 0)
    result = list(first)
    result.insert(at % (len(first) + 1), dimensions.new(len(parts), f"stacked in {place(node)}"))
    return tuple(result)


def split(follower: Follower, node: Node) -> list[Shape]:
    """Pieces of a dimension; equal ones are tied, as their number says where they are cut."""
    x = shape(node.args[0])
    values: Any = node.meta["val"]
    at: Any = argument(node, 2, "dim", 0)
    at %= len(x)
    lengths = [int(value.shape[at]) for value in values]
    reason = f"cut by {operation(node)} in {place(node)}"
    if len(set(lengths)) == 1 and len(lengths) > 1:
        pieces = dimensions.equal_parts(x[at], len(lengths), reason)
    else:
        pieces = dimensions.cut(x[at], lengths)
    return [(*x[:at], piece, *x[at + 1 :]) for piece in pieces]


def glu(follower: Follower, node: Node) -> Shape:
    """One half times the sigmoid of the other."""
    x = list(shape(node.args[0]))
    at: Any = argument(node, 1, "dim", -1)
    x[at] = dimensions.equal_parts(x[at], 2, f"halves of {place(node)}")[0]
    return tuple(x)


def unbind(follower: Follower, node: Node) -> list[Shape]:
    x = shape(node.args[0])
    at: Any = argument(node, 1, "dim", 0)
    at %= len(x)
    dimensions.pin(x[at], f"taken apart by {operation(node)} in {place(node)}")
    return [(*x[:at], *x[at + 1 :])] * len(node.meta["val"])


def select(follower: Follower, node: Node) -> Shape:
    x = shape(node.args[0])
    at: Any = node.args[1]
    at %= len(x)
    dimensions.pin(x[at], f"one of it is picked in {place(node)}")
    return (*x[:at], *x[at + 1 :])


def narrow(follower: Follower, node: Node) -> Shape:
    """A range of a dimension; with a step all of it stays."""
    x = list(shape(node.args[0]))
    at: Any = argument(node, 1, "dim", 0)
    at %= len(x)
    length, whole = sizes(node)[at], dimensions.size(x[at])
    if length == whole:
        return tuple(x)
    start: Any = argument(node, 2, "start", 0) or 0
    if not isinstance(start, int) or argument(node, 4, "step", 1) != 1:
        return _frozen(follower, node)
    start = max(0, start + whole if start < 0 else start)
    lengths = [start, length, whole - start - length]
    pieces = dimensions.cut(x[at], [n for n in lengths if n])
    x[at] = pieces[1 if start else 0]
    return tuple(x)


def expand(follower: Follower, node: Node) -> Shape:
    """Repeats dimensions of one entry."""
    x = shape(node.args[0])
    wanted = sizes(node)
    x = ((),) * (len(wanted) - len(x)) + tuple(x)
    return tuple(
        dim if dimensions.size(dim) == n else dimensions.new(n, f"repeated by {operation(node)} in {place(node)}")
        for dim, n in zip(x, wanted, strict=True)
    )


def repeat(follower: Follower, node: Node) -> Shape:
    """As ``expand``; a dimension of more than one entry that is repeated stays."""
    x = shape(node.args[0])
    wanted = sizes(node)
    x = ((),) * (len(wanted) - len(x)) + tuple(x)
    for dim, n in zip(x, wanted, strict=True):
        if dimensions.size(dim) != n:
            dimensions.pin(dim, f"repeated by {operation(node)} in {place(node)}")
    return expand(follower, node)


def pad(follower: Follower, node: Node) -> Shape:
    """Adds entries at the ends of the last dimensions; those it adds to stay."""
    x = shape(node.args[0])
    return tuple(
        dim
        if dimensions.size(dim) == n
        else dimensions.freeze(dim, f"padded in {place(node)}") and dimensions.new(n, f"padded in {place(node)}")
        for dim, n in zip(x, sizes(node), strict=True)
    )


def resample(follower: Follower, node: Node) -> Shape:
    """Pooling and interpolation: other pixels, the same units."""
    x = shape(node.args[0])
    kept = 2 if "upsample" in operation(node) or operation(node) == "grid_sampler" else len(x) - _rank(node)
    return (*x[:kept], *(dimensions.new(n, "pixels") for n in sizes(node)[kept:]))


def _rank(node: Node) -> int:
    return int(operation(node).split("pool")[1][0])


def roll(follower: Follower, node: Node) -> Shape:
    """Moves entries along dimensions, which therefore stay."""
    x = shape(node.args[0])
    over: Any = node.args[2] if operation(node) == "roll" else node.args[1]
    for at in over if isinstance(over, (list, tuple)) and over else range(len(x)):
        dimensions.pin(x[at], f"moved by {operation(node)} in {place(node)}")
    return x


def index(follower: Follower, node: Node) -> Shape:
    """``x[i]`` with tensors of whole numbers: what they pick from stays."""
    x = list(shape(node.args[0]))
    picked: Any = node.args[1]
    where = [at for at, tensor in enumerate(picked) if tensor is not None]
    if any(picked[at].meta["val"].dtype == torch.bool for at in where) or where != list(range(where[0], where[-1] + 1)):
        return _frozen(follower, node)
    reason = f"picked from in {place(node)}"
    for at in where:
        dimensions.pin(x[at], reason)
    before, after = x[: where[0]], x[where[-1] + 1 :]
    chosen = sizes(node)[len(before) : len(sizes(node)) - len(after)]
    return (*before, *(dimensions.new(n, reason) for n in chosen), *after)


def pixel_shuffle(follower: Follower, node: Node) -> Shape:
    """Some channels become pixels: those of one output channel are one unit."""
    *batch, channels, _, _ = shape(node.args[0])
    times: Any = node.args[1]
    units, inner = dimensions.view((channels,), [dimensions.size(channels) // times**2, times**2])
    dimensions.pin(inner, f"become pixels in {place(node)}")
    return (*batch, units, *(dimensions.new(n, "pixels") for n in sizes(node)[-2:]))


def to_channels(follower: Follower, node: Node) -> Shape:
    """Pixels, or neighbours of pixels, become channels: those of one input channel stand beside each other."""
    channels = shape(node.args[0])[1]
    _, entries, *rest = sizes(node)
    inner = dimensions.new(entries // dimensions.size(channels), f"pixels in {place(node)}")
    return (shape(node.args[0])[0], (*channels, *inner), *(dimensions.new(n, "pixels") for n in rest))


def channel_shuffle(follower: Follower, node: Node) -> Shape:
    x = list(shape(node.args[0]))
    groups: Any = node.args[1]
    lead, inner = dimensions.view((x[1],), [groups, dimensions.size(x[1]) // groups])
    dimensions.pin(lead, f"groups of {place(node)}")
    x[1] = (*inner, *lead)
    return tuple(x)


def made(follower: Follower, node: Node) -> Shape:
    """A tensor made of nothing: no unit is in it."""
    return tuple(dimensions.new(n, f"made by {operation(node)} in {place(node)}") for n in sizes(node))


def made_like(follower: Follower, node: Node) -> Shape:
    """A tensor made in the shape of another."""
    return shape(node.args[0])


def getitem(follower: Follower, node: Node) -> Any:
    source: Any = node.args[0]
    at: Any = node.args[1]
    found: Any = shape(source)
    return found[at] if isinstance(found, list) else found


def _frozen(follower: Follower, node: Node) -> Shape:
    given: Shape = follower.freeze(node, f"{operation(node)} in {place(node)}")
    return given

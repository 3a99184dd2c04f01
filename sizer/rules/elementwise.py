"""Rules of operations on each entry, and of reductions."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from sizer import dimensions
from sizer.dimensions import Shape
from sizer.follower import Follower, operation, place, shape, sizes, tensors
from sizer.rules.layers import broadcast

COMPARISONS = ("gt", "lt", "ge", "le")


def unary(follower: Follower, node: Node) -> Shape:
    return shape(next(tensors(node.args)))


def elementwise(follower: Follower, node: Node) -> Shape:
    """Any number of tensors, entry by entry, with broadcasting."""
    wanted = sizes(node)
    role = "factor" if operation(node) in {"mul", "div"} else "offset"
    operands = list(tensors(node.args))
    for operand in operands:
        for at, dim in enumerate(shape(operand)):
            if dimensions.size(dim) > 1:
                follower.role(operand, at, role)
    return broadcast([shape(operand) for operand in operands], wanted, place(node))


def reduction(follower: Follower, node: Node) -> Shape:
    """Every reduction over units depends on how many there are."""
    x = shape(node.args[0])
    given: Any = node.kwargs.get("dim", _axes(node))
    named = [given] if isinstance(given, int) else list(given or range(len(x)))
    over = {at % len(x) for at in named if x}
    keep = len(sizes(node)) == len(x)
    if not _only_sign(follower, node) and not (operation(node) == "sum" and follower.decides_only(node)):
        for at in over:
            dimensions.pin(x[at], f"{operation(node)} over its units in {place(node)}")
    return tuple(() if at in over else dim for at, dim in enumerate(x) if keep or at not in over)


def _axes(node: Node) -> Any:
    """Where the reduced dimensions stand among the arguments."""
    at = 2 if operation(node) in {"norm", "linalg_vector_norm"} else 1
    value = node.args[at] if len(node.args) > at else None
    return None if isinstance(value, bool) else value


def reduction_pair(follower: Follower, node: Node) -> Any:
    """Values and where they stand."""
    x = shape(node.args[0])
    reason = f"{operation(node)} over its units in {place(node)}"
    value: Any = node.meta["val"]
    if len(list(tensors(node.args))) > 1:
        return elementwise(follower, node)
    if not isinstance(value, (tuple, list)):
        return reduction(follower, node)
    at: Any = node.args[1] if len(node.args) > 1 else -1
    if not isinstance(at, int):
        return follower.freeze(node, reason)
    at %= len(x)
    dimensions.pin(x[at], reason)
    result = tuple(() if axis == at else d for axis, d in enumerate(x) if axis != at or value[0].dim() == len(x))
    return [result, result]


def _only_sign(follower: Follower, node: Node) -> bool:
    """Whether the result is only compared with 0, which units that are zero do not change."""
    compared = all(operation(user) in COMPARISONS and user.args[1] == 0 for user in node.users)
    return compared and follower.decides_only(node)


def softmax(follower: Follower, node: Node) -> Shape:
    x = shape(node.args[0])
    over: Any = node.args[1]
    dimensions.pin(x[over], f"{operation(node)} over its units in {place(node)}")
    return x


def along(follower: Follower, node: Node) -> Shape:
    """Something along one dimension, which therefore stays: sums so far, sorting."""
    x = shape(node.args[0])
    over: Any = node.args[1] if len(node.args) > 1 and isinstance(node.args[1], int) else -1
    dimensions.pin(x[over], f"{operation(node)} over its units in {place(node)}")
    return x

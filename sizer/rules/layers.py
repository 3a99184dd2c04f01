"""Rules of operations that have weights: products, convolutions, normalisations."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from sizer import dimensions
from sizer.dimensions import Dim, Shape
from sizer.follower import Follower, argument, is_state, operation, place, shape, sizes


def linear(follower: Follower, node: Node) -> Shape:
    """``x @ weight.T + bias``."""
    weight, bias = node.args[1], argument(node, 2, "bias")
    x = shape(node.args[0])
    if not is_state(weight):
        return _computed(follower, node)
    follower.read(node, -1, weight, bias, 1)
    follower.follows(node, "in_features", x[-1])
    rows = follower.produced(node, weight, bias, 0)
    follower.follows(node, "out_features", rows)
    return (*x[:-1], rows)


def convolution(follower: Follower, node: Node) -> Shape:
    """Any convolution, transposed ones too; of a grouped one the units are whole groups."""
    weight, bias = node.args[1], argument(node, 2, "bias")
    transposed = "transpose" in operation(node)
    groups: Any = argument(node, 6, "groups", 1)
    padding: Any = argument(node, 4, "padding", 0)
    if not is_state(weight):
        return _computed(follower, node)
    x = list(shape(node.args[0]))
    at = 1 - len(shape(weight))
    pixels = [dimensions.new(entries, "pixels") for entries in sizes(node)[at + 1 :]]
    unpadded = padding in (0, "valid") or (isinstance(padding, (list, tuple)) and not any(padding))
    even = unpadded and not transposed
    rows, columns = (1, 0) if transposed else (0, 1)
    if groups == 1:
        follower.read(node, at, weight, bias, columns, even=even)
        units = follower.produced(node, weight, bias, rows)
    else:
        units = _grouped(follower, node, weight, bias, groups, at, transposed)
    follower.follows(node, "in_channels", x[at])
    follower.follows(node, "out_channels", units)
    return (*x[:at], units, *pixels)


def _grouped(follower: Follower, node: Node, weight: Any, bias: Any, groups: int, at: int, transposed: bool) -> Dim:
    """Each group reads its own channels: a group is one unit, of the input and of the output alike."""
    reason = f"channels of one group of a grouped convolution in {place(node)}"
    x = shape(node.args[0])[at]
    first, second = shape(weight)[:2]
    lead, inner = dimensions.view((first,), [groups, dimensions.size(first) // groups])
    dimensions.pin(inner, reason)
    dimensions.pin(second, reason)
    entering, leaving = (inner, second) if transposed else (second, inner)
    dimensions.unify(x, (*lead, *entering))
    follower.follows(node, "groups", lead)
    return follower.gives(node, (*lead, *leaving), weight, bias, 0)


def _computed(follower: Follower, node: Node) -> Shape:
    """A product with a weight that is itself computed: all widths that it sees stay."""
    given: Shape = follower.freeze(node, f"the weight of {operation(node)} in {place(node)} is computed")
    return given


def product(follower: Follower, node: Node) -> Shape:
    """``a @ b``: a layer where b is a parameter; else both sides are data, and what is summed over stays."""
    a, b = node.args[-2:]
    left, right = shape(a), shape(b)
    if is_state(b) and len(right) == 2 and not is_state(a) and operation(node) != "addmm":
        follower.read(node, -1, b, None, 0)
        return (*left[:-1], follower.produced(node, b, None, 1))
    if len(left) < 2 or len(right) < 2:
        frozen: Shape = follower.freeze(node, f"{operation(node)} in {place(node)}")
        return frozen
    contract(node, left[-1], right[-2])
    batch = broadcast([left[:-2], right[:-2]], sizes(node)[:-2], place(node))
    return (*batch, left[-2], right[-1])


def contract(node: Node, left: Dim, right: Dim) -> None:
    """Says that a dimension of two tensors of data is summed over."""
    dimensions.unify(left, right)
    dimensions.pin(left, f"{operation(node)} sums over it in {place(node)}")


def broadcast(shapes: list[Shape], wanted: list[int], where: str) -> Shape:
    """The dimensions of tensors that are combined elementwise."""
    result: list[Dim] = [()] * len(wanted)
    for own in shapes:
        for at, dim in enumerate(own, start=len(wanted) - len(own)):
            if dimensions.size(dim) == wanted[at]:
                if result[at]:
                    dimensions.unify(result[at], dim)
                result[at] = result[at] or dim
            else:
                dimensions.pin(dim, f"broadcast in {where}")
    return tuple(result)


def attention(follower: Follower, node: Node) -> Shape:
    """softmax(q @ k.T) @ v: heads are units; the size of a head stays, as it scales the softmax."""
    q, k, v = (shape(part) for part in node.args[:3])
    mask = argument(node, 3, "attn_mask")
    contract(node, q[-1], k[-1])
    contract(node, k[-2], v[-2])
    leading = broadcast([q[:-2], k[:-2], v[:-2]], sizes(node)[:-2], place(node))
    if isinstance(mask, Node):
        broadcast([shape(mask), (*leading, q[-2], k[-2])], [dimensions.size(d) for d in (*leading, q[-2], k[-2])], "")
    return (*leading, q[-2], v[-1])


def einsum(follower: Follower, node: Node) -> Shape:
    """A sum of products of data by its equation; what is summed over stays."""
    equation, operands = node.args[0], node.args[1]
    assert isinstance(equation, str)
    assert isinstance(operands, (list, tuple))
    terms, _, result = equation.replace(" ", "").partition("->")
    if "." in terms or not result:
        frozen: Shape = follower.freeze(node, f"einsum '{equation}' in {place(node)}")
        return frozen
    letters: dict[str, Dim] = {}
    for term, operand in zip(terms.split(","), operands, strict=True):
        for at, letter in enumerate(term):
            dim = shape(operand)[at]
            if letter in letters:
                dimensions.unify(letters[letter], dim)
            letters.setdefault(letter, dim)
            follower.role(operand, at, "factor")
            if is_state(operand) or letter not in result:
                dimensions.pin(dim, f"einsum '{equation}' in {place(node)}")
    return tuple(letters[letter] for letter in result)


def embedding(follower: Follower, node: Node) -> Shape:
    """Rows of a table, picked by whole numbers: each column of the table is a unit."""
    weight, picked = node.args[:2]
    dimensions.pin(shape(weight)[0], f"entries of the table of {place(node)}")
    units = follower.produced(node, weight, None, 1)
    follower.follows(node, "embedding_dim", units)
    return (*shape(picked), units)


def batch_norm(follower: Follower, node: Node) -> Shape:
    """Normalises each unit by itself, over batch and pixels; instance normalisation likewise."""
    x = shape(node.args[0])
    for given, role in zip(node.args[1:5], ("scale", "shift", "mean", "variance"), strict=True):
        if isinstance(given, Node):
            dimensions.unify(x[1], shape(given)[0])
            follower.role(given, 0, role)
    follower.follows(node, "num_features", x[1])
    follower.written(node, *node.args[1:3])
    return x


def group_norm(follower: Follower, node: Node) -> Shape:
    """Normalises some units together: all of them are one unit."""
    x = list(shape(node.args[0]))
    groups: Any = node.args[1]
    lead, inner = dimensions.view((x[1],), [groups, dimensions.size(x[1]) // groups])
    dimensions.pin(inner, f"normalised together by {place(node)}")
    if groups == 1:
        dimensions.pin(x[1], f"normalised together by {place(node)}")
    for at, (name, role) in enumerate((("weight", "scale"), ("bias", "shift")), start=2):
        given = argument(node, at, name)
        if isinstance(given, Node):
            dimensions.unify(x[1], shape(given)[0])
            follower.role(given, 0, role)
    follower.written(node, argument(node, 2, "weight"), argument(node, 3, "bias"))
    follower.follows(node, "num_groups", lead)
    follower.follows(node, "num_channels", x[1])
    return tuple(x)


def layer_norm(follower: Follower, node: Node) -> Shape:
    """Mean and variance are taken over the units: one more that is zero would change them."""
    x = shape(node.args[0])
    over: Any = node.args[1]
    for at, dim in enumerate(x[len(x) - len(over) :]):
        for parameter in node.args[2:4]:
            if isinstance(parameter, Node):
                dimensions.unify(dim, shape(parameter)[at])
        dimensions.pin(dim, f"{operation(node)} takes its mean over them in {place(node)}")
    return x


def prelu(follower: Follower, node: Node) -> Shape:
    """A slope for each unit, or one for all."""
    x, weight = shape(node.args[0]), node.args[1]
    if len(x) > 1 and shape(weight) and dimensions.size(shape(weight)[0]) > 1:
        dimensions.unify(x[1], shape(weight)[0])
        follower.role(weight, 0, "slope")
        follower.follows(node, "num_parameters", x[1])
    return x

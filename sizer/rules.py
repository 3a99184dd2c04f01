"""What each kind of operation does to dimensions: one rule a kind, in one table at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from sizer import dimensions
from sizer.dimensions import Dim, Shape, atoms
from sizer.errors import UnsupportedNetworkError
from sizer.groups import Reader, Site, TensorRef


class Follower:
    """Follows dimensions through a network's graphs, and notes who produces, normalises and reads units.

    Attributes:
        refs, shapes: every parameter and buffer and its dimensions, by the tensor's id.
        roles: what (tensor id, dimension) is used for.
        producers: the rows of linear and convolutional weights with their layer's path, in the order they run.
        sites, readers: where units are written and read.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.refs: dict[int, TensorRef] = {}
        self.shapes: dict[int, Shape] = {}
        self.roles: dict[tuple[int, int], str] = {}
        self.producers: list[tuple[Dim, str]] = []
        self.sites: list[tuple[Dim, Site, str]] = []
        self.readers: list[tuple[Dim, Reader]] = []
        self._inputs: dict[str, Shape] = {}
        self._used: set[Node] = set()
        owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
        for path, child in module.named_modules():
            for name, tensor in [*child._parameters.items(), *child._buffers.items()]:
                if tensor is not None:
                    owners.setdefault(id(tensor), []).append((f"{path}.{name}" if path else name, child, name))
        for key, found in owners.items():
            self.refs[key] = TensorRef(found[0][0], tuple((child, name) for _, child, name in found))
            self.shapes[key] = tuple(dimensions.new(entries) for entries in self.refs[key].tensor.shape)

    def walk(self, program: torch.export.ExportedProgram) -> None:
        """Applies the rules to one graph, in order."""
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._used = _leading_to_output(program.graph)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, names)
            elif node.op == "output":
                for value in tensors(node.args):
                    for dim in shape(value):
                        dimensions.pin(dim, "an output of the network")
            elif node.op == "call_function":
                self._apply(node)
            else:
                raise self.refusal(node, f"a graph node of kind {node.op} has no rule")

    def _placeholder(self, node: Node, names: dict[str, str]) -> None:
        value = node.meta.get("val")
        if node.name in names:
            owner, _, name = names[node.name].removeprefix("module.").rpartition(".")
            node.meta["ref"] = id(getattr(self.module.get_submodule(owner), name))
            node.meta["shape"] = self.shapes[node.meta["ref"]]
        elif isinstance(value, Tensor):
            if node.name not in self._inputs:
                self._inputs[node.name] = tuple(dimensions.new(n, "an input of the network") for n in value.shape)
            node.meta["shape"] = self._inputs[node.name]

    def _apply(self, node: Node) -> None:
        name = operation(node)
        if name in IGNORED:
            return
        for value in tensors((node.args, node.kwargs)):
            if "shape" not in value.meta:
                raise self.refusal(node, f"where its input {value.name} comes from was not followed")
        try:
            node.meta["shape"] = RULES.get(name, unruled)(self, node)
        except ValueError as error:
            raise self.refusal(node, str(error)) from error

    def refusal(self, node: Node, why: str) -> UnsupportedNetworkError:
        return UnsupportedNetworkError(f"{place(node)}, operation {operation(node)}: {why}")

    def decides_only(self, node: Node) -> bool:
        """Whether the operation's result reaches no output: it only decides which way forward() goes."""
        return node not in self._used

    def role(self, node: Any, dim: int, role: str) -> None:
        """Notes what a dimension is used for, where ``node`` is a parameter or buffer."""
        if isinstance(node, Node) and "ref" in node.meta:
            self.roles.setdefault((node.meta["ref"], dim), role)

    def written(self, node: Node, units: Dim, at: int, *, normalises: bool = False) -> None:
        """Notes that ``node`` writes ``units`` along ``at`` (negative), unless a normalisation rewrites them all."""
        if not normalises and _only_normalised(node):
            return
        why = "" if _alone(node) else f"{operation(node)} is one of several operations in {place(node)}"
        path = module_path(node)
        self.sites.append((units, Site(self.module.get_submodule(path), path, at, normalises), why))

    def produced(self, node: Node, units: Dim, at: int, *, padded: bool) -> Dim:
        """A linear or convolutional operation: reads ``units`` along ``at``, gives the rows of its weight there."""
        _, weight, bias = (*node.args, None)[:3]
        if not isinstance(weight, Node) or "ref" not in weight.meta:
            raise self.refusal(node, "its weight is computed, not a parameter of a module")
        path = module_path(node)
        ref = self.refs[bias.meta["ref"]] if isinstance(bias, Node) and "ref" in bias.meta else None
        module, own = self.module.get_submodule(path), self.refs[weight.meta["ref"]]
        reader = Reader(module, path, at, own, ref, padded, _alone(node))
        self.readers.append((units, reader))
        dimensions.unify(units, shape(weight)[1])
        rows = shape(weight)[0]
        self.role(weight, 0, "row")
        self.role(weight, 1, "column")
        if isinstance(bias, Node):
            dimensions.unify(rows, shape(bias)[0])
            self.role(bias, 0, "bias")
        self.producers.append((rows, path))
        self.written(node, rows, at)
        return rows


# Reading the graph --------------------------------------------------------------------------------


def tensors(value: Any) -> Iterator[Node]:
    """The nodes among nested arguments that stand for tensors."""
    if isinstance(value, Node):
        if isinstance(value.meta.get("val"), Tensor):
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def shape(node: Any) -> Shape:
    found: Shape = node.meta["shape"]
    return found


def sizes(node: Node) -> list[int]:
    value = node.meta.get("val")
    if not isinstance(value, (Tensor, tuple, list)):
        return []
    return [int(entries) for entries in (value[0] if isinstance(value, (tuple, list)) else value).shape]


def operation(node: Node) -> str:
    """The operation's name without namespace, overload and in-place mark: ``relu`` for ``aten.relu_.default``."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        name = str(target._schema.name).split("::")[-1]
        return name if name.startswith("_") else name.rstrip("_")
    return str(getattr(target, "__name__", target))


def _stack(node: Node) -> dict[str, tuple[str, Any]]:
    return node.meta.get("nn_module_stack") or {"": ("", None)}


def _call(node: Node) -> str:
    return list(_stack(node))[-1]


def _alone(node: Node) -> bool:
    """Whether the operation is the only one of its module's call, so that its output is the module's."""
    same = [n for n in node.graph.nodes if n.op == "call_function" and n.users and _call(n) == _call(node)]
    return len(same) == 1


def module_path(node: Node) -> str:
    """The path of the innermost module whose forward() ran the operation; "" for the network's own."""
    path = list(_stack(node).values())[-1][0].split("@")[0]
    return path.removeprefix("module").removeprefix(".")


def place(node: Node) -> str:
    return f"module '{module_path(node)}'" if module_path(node) else "the network's own forward()"


def _leading_to_output(graph: torch.fx.Graph) -> set[Node]:
    found: set[Node] = set()
    pending = [node for node in graph.nodes if node.op == "output"]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending += node.all_input_nodes
    return found


def _only_normalised(node: Node) -> bool:
    """Whether every way from the operation leads through elementwise ones or pooling into a batch normalisation."""
    return bool(node.users) and all(
        operation(user) == "batch_norm" or (operation(user) in {*UNARY, *POOLS} and _only_normalised(user))
        for user in node.users
    )


def _moves_zero(node: Node) -> bool:
    """Whether the operation gives something else than 0 where its data is 0 and its parameters are not."""

    def stand_in(value: Any) -> Any:
        if isinstance(value, Node):
            parameter = "ref" in value.meta or not any(atoms(dim) for dim in shape(value)[1:])
            return torch.full((1,), 1.0 if parameter and value is not node.args[0] else 0.0)
        return value

    assert callable(node.target)
    result = node.target(*map(stand_in, node.args), **{key: stand_in(value) for key, value in node.kwargs.items()})
    return bool((result != 0).any())


# The rules: each gives the dimensions of its operation's output ----------------------------------------


def linear(follower: Follower, node: Node) -> Shape:
    x = shape(node.args[0])
    return (*x[:-1], follower.produced(node, x[-1], -1, padded=False))


def convolution(follower: Follower, node: Node) -> Shape:
    given: tuple[Any, ...] = node.args
    # one unpacking: mypy cannot follow two
    x, weight, _, _, padding, _, groups = given + (None, 1, 0, 1, 1)[len(given) - 2 :]
    if groups != 1:
        raise follower.refusal(node, f"grouped convolution (groups={groups}) cannot be sized yet; use groups=1")
    spatial = len(shape(weight)) - 2
    at = -spatial - 1
    padded = padding == "same" or (isinstance(padding, (list, tuple)) and any(padding))
    pixels = (dimensions.new(entries, "pixels") for entries in sizes(node)[-spatial:])
    return (*shape(x)[:at], follower.produced(node, shape(x)[at], at, padded=padded), *pixels)


def batch_norm(follower: Follower, node: Node) -> Shape:
    x = shape(node.args[0])
    for argument, role in zip(node.args[1:5], ("scale", "shift", "mean", "variance"), strict=True):
        if argument is not None:
            dimensions.unify(x[1], shape(argument)[0])
            follower.role(argument, 0, role)
    follower.written(node, x[1], 1 - len(x), normalises=True)
    return x


def unary(follower: Follower, node: Node) -> Shape:
    if _moves_zero(node):
        dimensions.shift(shape(node.args[0]))
    return shape(node.args[0])


def elementwise(follower: Follower, node: Node) -> Shape:
    operands = list(tensors(node.args[:2]))
    rank = len(sizes(node))
    result: list[Dim] = [()] * rank
    role = "factor" if operation(node) in {"mul", "div"} else "offset"
    for operand in operands:
        own = shape(operand)
        for at, dim in enumerate(own, start=rank - len(own)):
            follower.role(operand, at - rank + len(own), role)
            if dimensions.size(dim) == sizes(node)[at]:
                if atoms(result[at]):
                    dimensions.unify(result[at], dim)
                result[at] = dim
            else:
                dimensions.pin(dim, f"broadcast in {place(node)}")
    if _moves_zero(node):
        dimensions.shift(tuple(result))
    return tuple(result)


def pool(follower: Follower, node: Node) -> Shape:
    spatial = int(operation(node).split("pool")[1][0])
    pixels = (dimensions.new(entries, "pixels") for entries in sizes(node)[-spatial:])
    return (*shape(node.args[0])[:-spatial], *pixels)


def view(follower: Follower, node: Node) -> Shape:
    return dimensions.view(shape(node.args[0]), sizes(node), f"cut into parts by {operation(node)} in {place(node)}")


def permute(follower: Follower, node: Node) -> Shape:
    x = list(shape(node.args[0]))
    order: Any = node.args[1:]
    if operation(node) == "permute":
        return tuple(x[at] for at in order[0])
    first, second = order or (0, 1)
    x[first], x[second] = x[second], x[first]
    return tuple(x)


def reduction(follower: Follower, node: Node) -> Shape:
    """A sum does not see units that are zero; every other reduction over units depends on how many there are."""
    x = shape(node.args[0])
    given: Any = node.args[1] if len(node.args) > 1 else None
    named = [given] if isinstance(given, int) else list(given or range(len(x)))
    over = {at % len(x) for at in named}
    keep = len(node.args) > 2 and bool(node.args[2])
    if operation(node) != "sum" and not _sign_decides(follower, node):
        for at in over:
            dimensions.pin(x[at], f"{operation(node)} over its units in {place(node)}")
    return tuple(() if at in over else dim for at, dim in enumerate(x) if keep or at not in over)


def _sign_decides(follower: Follower, node: Node) -> bool:
    """Whether the result is only compared with 0, which units that are zero do not change."""
    compared = all(operation(user) in COMPARISONS and user.args[1] == 0 for user in node.users)
    return compared and follower.decides_only(node)


def softmax(follower: Follower, node: Node) -> Shape:
    x = shape(node.args[0])
    over: Any = node.args[1]
    dimensions.pin(x[over], f"{operation(node)} over its units in {place(node)}")
    return x


def passed_on(follower: Follower, node: Node) -> Shape:
    source: Any = node.args[0]
    return shape(source)


def unruled(follower: Follower, node: Node) -> Shape:
    """What no rule knows is harmless where no width is free, or where the result only decides between branches."""
    dims = [dim for value in tensors((node.args, node.kwargs)) for dim in shape(value)]
    free = any(not atom.pin for dim in dims for atom in atoms(dim))
    if free and not follower.decides_only(node):
        raise ValueError("there is no rule for this operation, so widths cannot be followed through it")
    reason = f"{operation(node)} in {place(node)} has no rule"
    for dim in dims:
        dimensions.pin(dim, reason)
    return tuple(dimensions.new(entries, reason) for entries in sizes(node))


UNARY = frozenset(
    {
        "abs",
        "alias",
        "alpha_dropout",
        "celu",
        "clamp",
        "clamp_max",
        "clamp_min",
        "clone",
        "contiguous",
        "cos",
        "detach",
        "dropout",
        "elu",
        "exp",
        "feature_alpha_dropout",
        "feature_dropout",
        "gelu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
        "lift_fresh_copy",
        "log",
        "log_sigmoid",
        "logical_not",
        "mish",
        "neg",
        "pow",
        "reciprocal",
        "relu",
        "relu6",
        "rsqrt",
        "selu",
        "sigmoid",
        "silu",
        "sin",
        "softplus",
        "softshrink",
        "softsign",
        "sqrt",
        "square",
        "tanh",
        "tanhshrink",
        "threshold",
        "to",
        "_to_copy",
    }
)
POOLS = frozenset(
    f"{kind}_pool{rank}d" for kind in ("max", "avg", "adaptive_avg", "adaptive_max") for rank in (1, 2)
) | {"max_pool2d_with_indices"}

COMPARISONS = ("gt", "lt", "ge", "le")

RULES: dict[str, Callable[[Follower, Node], Shape]] = {
    "linear": linear,
    **dict.fromkeys(("conv1d", "conv2d"), convolution),
    "batch_norm": batch_norm,
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(POOLS, pool),
    **dict.fromkeys(("add", "sub", "rsub", "mul", "div", "maximum", "minimum"), elementwise),
    **dict.fromkeys((*COMPARISONS, "eq", "ne"), elementwise),
    **dict.fromkeys(["view", "reshape", "_unsafe_view", "flatten", "unflatten", "unsqueeze", "squeeze"], view),
    **dict.fromkeys(("permute", "transpose", "t"), permute),
    **dict.fromkeys(("sum", "mean", "amax", "amin"), reduction),
    **dict.fromkeys(("softmax", "log_softmax", "_softmax", "_log_softmax"), softmax),
    "getitem": passed_on,
}
IGNORED = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async"}

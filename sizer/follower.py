"""Follows the dimensions of a network's parameters through its graphs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from sizer import dimensions
from sizer.dimensions import Dim, Shape
from sizer.errors import UnsupportedNetworkError
from sizer.groups import Attribute, Reader, Slot, TensorRef
from sizer.tracing import Program

NORMALISING = {"batch_norm": 1, "instance_norm": 1, "group_norm": 2}
"""Operations that rescale each unit, with where their own scale stands among the arguments."""
IGNORED = {"_assert_tensor_metadata", "_assert_scalar", "_assert_async", "_set_grad_enabled", "_dropout_out"}


class Follower:
    """Notes who produces, normalises and reads units, with the rules of ``sizer.rules``.

    Attributes:
        refs, shapes: every parameter and buffer and its dimensions, by the tensor's id.
        roles: what (tensor id, dimension) is used for.
        writers: ids of the tensors that scale units as their readers see them.
        producers: the rows of linear and convolutional weights with their layer's path, in the order they run.
        readers, attributes: as in ``Group``.
    """

    def __init__(self, module: nn.Module, ignore: Sequence[str] = ()) -> None:
        self.module = module
        self.ignore = ignore
        self.refs: dict[int, TensorRef] = {}
        self.shapes: dict[int, Shape] = {}
        self.roles: dict[tuple[int, int], str] = {}
        self.writers: set[int] = set()
        self.producers: list[tuple[Dim, str]] = []
        self.readers: list[Reader] = []
        self.attributes: list[Attribute] = []
        self._inputs: dict[str, Shape] = {}
        self._used: set[Node] = set()
        self._calls: dict[str, int] = {}
        owners: dict[int, list[tuple[str, nn.Module, str]]] = {}
        for path, child in module.named_modules():
            for name, tensor in [*child._parameters.items(), *child._buffers.items()]:
                if tensor is not None:
                    owners.setdefault(id(tensor), []).append((f"{path}.{name}" if path else name, child, name))
        for key, found in owners.items():
            self.refs[key] = TensorRef(found[0][0], tuple((child, name) for _, child, name in found))
            self.shapes[key] = tuple(dimensions.new(entries) for entries in self.refs[key].tensor.shape)

    def walk(self, program: Program) -> None:
        """Applies the rules to one graph, in order."""
        signature = program.graph_signature
        names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
        self._used = _leading_to_output(program.graph)
        self._calls = _operations_by_call(program.graph)
        for node in program.graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node, names)
            elif node.op == "output":
                for value in tensors(node.args):
                    for dim in shape(value):
                        dimensions.pin(dim, "an output of the network")
            elif node.op == "call_function":
                self._apply(node)
            elif node.op != "get_attr":
                raise self.refusal(node, f"a graph node of kind {node.op} has no rule")

    def slots(self) -> Iterator[Slot]:
        """Every dimension of every parameter and buffer."""
        for key, dims in self.shapes.items():
            for at, dim in enumerate(dims):
                yield Slot(self.refs[key], at, dim, self.roles.get((key, at), "unused"))

    def pin_ignored(self) -> None:
        """Says that what ignored layers hold stays, but for what they read."""
        for slot in self.slots():
            if slot.role != "column" and any(slot.ref.path.startswith(f"{path}.") for path in self.ignore):
                dimensions.pin(slot.units, "ignored, as asked")

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
        from sizer.rules import RULES, unruled

        name = operation(node)
        if name in IGNORED:
            return
        for value in tensors((node.args, node.kwargs)):
            if "shape" not in value.meta:
                raise self.refusal(node, f"where its input {value.name} comes from was not followed")
        try:
            node.meta["shape"] = RULES.get(name, unruled)(self, node)
        except (ValueError, TypeError, AttributeError, IndexError) as error:
            if not self.ignored(node):
                odd = "" if isinstance(error, ValueError) else "its rule does not know such arguments: "
                raise self.refusal(node, f"{odd}{error}") from error
            node.meta["shape"] = self.freeze(node, "ignored, as asked")

    def refusal(self, node: Node, why: str) -> UnsupportedNetworkError:
        return UnsupportedNetworkError(f"{place(node)}, operation {operation(node)}: {why}")

    def freeze(self, node: Node, reason: str) -> Any:
        """Pins all that an operation sees; what it gives keeps its size, too."""
        for source in tensors((node.args, node.kwargs)):
            for dim in shape(source):
                dimensions.pin(dim, reason)
        value = node.meta.get("val")
        if isinstance(value, (tuple, list)):
            return [tuple(dimensions.new(int(n), reason) for n in v.shape) for v in value if isinstance(v, Tensor)]
        return tuple(dimensions.new(entries, reason) for entries in sizes(node))

    def ignored(self, node: Node) -> bool:
        """Whether the operation belongs to a module whose widths stay as they are."""
        stack = [path.split("@")[0].removeprefix("module").removeprefix(".") for path, _ in _stack(node).values()]
        return any(path in self.ignore for path in stack)

    def decides_only(self, node: Node) -> bool:
        """Whether the operation's result reaches no output: it only decides which way forward() goes."""
        return node not in self._used

    def role(self, node: Any, dim: int, role: str) -> None:
        """Notes what a dimension is used for, where ``node`` is a parameter or buffer."""
        if is_state(node):
            self.roles.setdefault((node.meta["ref"], dim), role)

    def follows(self, node: Node, name: str, units: Dim) -> None:
        """Notes that the module that runs ``node`` may say the size of ``units`` in its attribute ``name``."""
        module = self.module.get_submodule(module_path(node))
        value = vars(module).get(name)
        if isinstance(value, int) and value == dimensions.size(units):
            self.attributes.append(Attribute(module, name, units))

    def written(self, node: Node, *tensors: Any) -> None:
        """Notes that ``tensors`` scale what ``node`` gives, unless a normalisation rescales all of it."""
        if operation(node) in NORMALISING or not _only_normalised(node):
            self.writers.update(t.meta["ref"] for t in tensors if is_state(t))

    def produced(self, node: Node, weight: Any, bias: Any, rows: int) -> Dim:
        """An operation whose output is made of the rows of ``weight``, which its dimension ``rows`` holds."""
        return self.gives(node, shape(weight)[rows], weight, bias, rows)

    def gives(self, node: Node, units: Dim, weight: Any, bias: Any, rows: int) -> Dim:
        """As ``produced``, where more than the rows of the weight makes up the output's ``units``."""
        self.role(weight, rows, "row")
        if isinstance(bias, Node):
            dimensions.unify(units, shape(bias)[0])
            self.role(bias, 0, "bias")
        if self.ignored(node):
            dimensions.pin(units, "ignored, as asked")
        self.producers.append((units, self.layer(node, weight)))
        self.written(node, weight, bias)
        return units

    def layer(self, node: Node, weight: Any) -> str:
        """What a layer is called: the module that runs it, if the weight is that one's, else whose weight it is."""
        path = module_path(node)
        if not is_state(weight):
            return path
        ref = self.refs[weight.meta["ref"]]
        owner, _, _ = ref.path.rpartition(".")
        own = self.module.get_submodule(path)
        if path and len(own._parameters) <= 2 and any(module is own for module, _ in ref.owners):
            return path
        return owner if owner and owner != path else ref.path

    def read(self, node: Node, at: int, weight: Any, bias: Any, column: int, *, even: bool = True) -> None:
        """An operation that multiplies the units along ``at`` of its input with the columns of ``weight``."""
        source: Any = node.args[0]
        units = shape(weight)[column]
        dimensions.unify(shape(source)[at], units)
        if self.roles.get((weight.meta["ref"], column)) == "row":
            dimensions.pin(units, f"{place(node)} reads them with the weight that gives them")
        self.role(weight, column, "column")
        path = module_path(node)
        slot = Slot(self.refs[weight.meta["ref"]], column, units, "column")
        added = self._own(bias)
        mean = None if isinstance(bias, Node) else self._subtracted(node)
        alone = self._calls[_call(node)] == 1
        reader = Reader(self.module.get_submodule(path), path, slot, at, added, mean, even, alone)
        self.readers.append(reader)

    def _subtracted(self, node: Node) -> TensorRef | None:
        """The running mean of the batch normalisation that is all that follows ``node``."""
        users = list(node.users)
        if len(users) != 1 or operation(users[0]) != "batch_norm" or users[0].args[0] is not node:
            return None
        return self._own(users[0].args[3])

    def _own(self, node: Any) -> TensorRef | None:
        """The parameter or buffer that a node stands for, if nothing else uses it."""
        if not is_state(node) or len(node.users) > 1:
            return None
        ref = self.refs[node.meta["ref"]]
        return ref if len(ref.owners) == 1 else None


# Reading the graph --------------------------------------------------------------------------------


def tensors(value: Any) -> Iterator[Node]:
    """The nodes among nested arguments that stand for tensors."""
    if isinstance(value, Node):
        if isinstance(value.meta.get("val"), (Tensor, tuple, list)):
            yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, dict):
        yield from tensors(list(value.values()))


def is_state(node: Any) -> bool:
    """Whether a node stands for a parameter or buffer of the network."""
    return isinstance(node, Node) and "ref" in node.meta


def shape(node: Any) -> Shape:
    """The dimensions of the tensor that a node stands for."""
    found: Shape = node.meta["shape"]
    return found


def sizes(node: Node) -> list[int]:
    """The sizes of a node's tensor; of the first where it gives several."""
    value = node.meta.get("val")
    if not isinstance(value, (Tensor, tuple, list)):
        return []
    return [int(entries) for entries in (value[0] if isinstance(value, (tuple, list)) else value).shape]


def argument(node: Node, at: int, name: str, default: Any = None) -> Any:
    """An argument of an operation, given by place or by name."""
    return node.args[at] if len(node.args) > at else node.kwargs.get(name, default)


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


def _operations_by_call(graph: torch.fx.Graph) -> dict[str, int]:
    counts: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_function" and node.users:
            counts[_call(node)] = counts.get(_call(node), 0) + 1
    return counts


def module_path(node: Node) -> str:
    """The path of the innermost module whose forward() ran the operation; "" for the network's own."""
    path = list(_stack(node).values())[-1][0].split("@")[0]
    return path.removeprefix("module").removeprefix(".")


def place(node: Node) -> str:
    """Where an operation stands, for messages."""
    return f"module '{module_path(node)}'" if module_path(node) else "the network's own forward()"


def producers_of(follower: Follower, dims: list[Dim]) -> tuple[str, ...]:
    """The paths of the layers that produce the free units of some dimensions."""
    wanted = {leaf for dim in dims for leaf in dimensions.leaves(dim) if not leaf.pin}
    return tuple(
        dict.fromkeys(path for rows, path in follower.producers if path and wanted & {*dimensions.leaves(rows)})
    )


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
    """Whether every way from the operation leads through elementwise ones or pooling into a scaling normalisation."""
    from sizer.rules import POOLS, UNARY

    return bool(node.users) and all(
        is_state(argument(user, NORMALISING.get(operation(user), len(user.args)), "weight"))
        or (operation(user) in {*UNARY, *POOLS} and _only_normalised(user))
        for user in node.users
    )

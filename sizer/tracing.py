"""The graphs of a network, from torch.export: one for every way that its branches on data can go."""

from __future__ import annotations

import logging
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import ExportGraphSignature
from torch.fx import Graph
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from sizer.chain import chain_of
from sizer.errors import UnsupportedNetworkError

MAX_PATHS = 64
NOISY = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes")


class _Decide(TorchFunctionMode):
    """Answers ``bool(tensor)`` from a script while tracing, so that both sides of ``if tensor:`` can be followed."""

    def __init__(self, script: Sequence[bool]) -> None:
        super().__init__()
        self.script = script
        self.taken: list[bool] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.Tensor.__bool__:
            at = len(self.taken)
            if at >= MAX_PATHS:
                raise UnsupportedNetworkError(f"forward() asks a tensor more than {MAX_PATHS} times which way to go")
            self.taken.append(self.script[at] if at < len(self.script) else False)
            return self.taken[-1]
        return func(*args, **(kwargs or {}))


class _Scripted(nn.Module):
    def __init__(self, module: nn.Module, mode: _Decide) -> None:
        super().__init__()
        self.module = module
        self.mode = mode

    def forward(self, *inputs: Any, **named: Any) -> Any:
        with self.mode:
            return self.module(*inputs, **named)


@torch.library.custom_op("sizer::opaque", mutates_args=())
def _opaque(inputs: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Stands for a module that is left out of the graph: a tensor of the shape that the module gave."""
    return inputs[0].new_empty(shape, dtype=dtype)


@_opaque.register_fake
def _(inputs: Sequence[Tensor], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return inputs[0].new_empty(shape, dtype=dtype)


class _Recorded:
    """What a module was given and gave, call by call."""

    def __init__(self) -> None:
        self.inputs: list[tuple[tuple[Any, ...], dict[str, Any]]] = []
        self.outputs: list[Any] = []


def _programs(
    module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any] | None = None
) -> Iterator[torch.export.ExportedProgram]:
    pending: list[list[bool]] = [[]]
    for _ in range(MAX_PATHS):
        if not pending:
            return
        script = pending.pop()
        mode = _Decide(script)
        yield torch.export.export(_Scripted(module, mode), inputs, named, strict=False)
        pending += [[*mode.taken[:at], True] for at in range(len(script), len(mode.taken))]
    raise UnsupportedNetworkError(f"the network branches on its data in more than {MAX_PATHS} ways")


@dataclass(frozen=True)
class Program:
    """Of what torch.export gives, all that is followed; it holds no tensor of the network."""

    graph: Graph
    graph_signature: ExportGraphSignature

    def copy(self) -> Program:
        graph = Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        return Program(graph, self.graph_signature)


_CHAINS: OrderedDict[Any, list[Program]] = OrderedDict()
"""Those of the last chains that were traced: the trials of a sweep are alike, and tracing takes longer than a pass."""
KEPT = 32


def programs(module: nn.Module, inputs: tuple[Any, ...], ignore: Sequence[str] = ()) -> list[Program]:
    """Every graph of ``module``; parameters in them are named ``module.<path>``.

    Args:
        module: the network; it is not changed.
        inputs: its positional inputs.
        ignore: paths of submodules. One that torch.export refuses stands in the graph as an operation ``opaque``.

    Raises:
        UnsupportedNetworkError: torch.export cannot follow it; the message names the innermost module that it refuses.
    """
    alike = _likeness(module, inputs)
    known = _CHAINS.get(alike) if alike is not None else None
    if known is not None:
        return [program.copy() for program in known]
    with _quiet(), _slow_attention():
        try:
            found = [Program(each.graph, each.graph_signature) for each in _programs(module, inputs)]
            if alike is not None:
                _CHAINS[alike] = [program.copy() for program in found]
                while len(_CHAINS) > KEPT:
                    _CHAINS.popitem(last=False)
            return found
        except UnsupportedNetworkError:
            raise
        except Exception as error:  # torch.export raises many types; all mean that it cannot follow this module
            calls = _record(module, inputs)
            path, cause = _innermost_refused(module, calls, error)
        left_out = [other for other in ignore if path == other or path.startswith(f"{other}.")]
        if left_out:
            with _left_out(module.get_submodule(left_out[0]), calls[left_out[0]]):
                others = [other for other in ignore if other != left_out[0]]
                return programs(module, inputs, others)
    where = f"module '{path}' ({type(module.get_submodule(path)).__name__})" if path else "the network's forward()"
    first = (str(cause).strip() or "no message").splitlines()[0]
    remedy = f", or leave it as it is with ignore=('{path}',)" if path else ""
    raise UnsupportedNetworkError(
        f"{where} cannot be traced: {type(cause).__name__}: {first}; write it with tensor operations that "
        f"torch.export follows{remedy}"
    ) from cause


def _likeness(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """What two chains that have the same graph have in common; None for other networks, whose forward() is unknown."""
    pieces = chain_of(module)
    if pieces is None or not all(isinstance(x, Tensor) for x in inputs):
        return None
    tensors = [tensor for piece in pieces for tensor in piece.module._parameters.values() if tensor is not None]
    tied = [id(tensor) for tensor in tensors]
    return (
        tuple((piece.path, piece.kind, piece.module.training) for piece in pieces),
        tuple((x.shape, x.dtype, x.device, x.requires_grad) for x in (*inputs, *tensors)),
        tuple(tied.index(each) for each in tied),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from logging what is about to be said in an error, and from warning of its own tracing."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Keeps nn.MultiheadAttention from its one fused operation, through which nothing can be followed."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _left_out(module: nn.Module, calls: _Recorded) -> Iterator[None]:
    """Replaces a module's forward() by an opaque operation that gives tensors of the shapes that it gave."""
    rest = iter(calls.outputs * MAX_PATHS)

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = [value for value in pytree.tree_leaves((args, kwargs)) if isinstance(value, Tensor)]

        def stand_in(value: Any) -> Any:
            return _opaque(given, list(value.shape), value.dtype) if isinstance(value, Tensor) else value

        return pytree.tree_map(stand_in, next(rest))

    module.__dict__["forward"] = forward
    try:
        yield
    finally:
        del module.__dict__["forward"]


def _record(module: nn.Module, inputs: tuple[Any, ...]) -> dict[str, _Recorded]:
    """What every submodule is given and gives in one forward pass, in the order in which they begin.

    Raises:
        UnsupportedNetworkError: forward() fails on these inputs.
    """
    seen: dict[str, _Recorded] = {}

    def before(path: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
        return lambda _, args, named: seen.setdefault(path, _Recorded()).inputs.append((args, named))

    def after(path: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        return lambda _, __, output: seen[path].outputs.append(output)

    with ExitStack() as hooks, torch.no_grad(), torch.random.fork_rng([]):
        for path, child in module.named_modules():
            hooks.callback(child.register_forward_pre_hook(before(path), with_kwargs=True).remove)
            hooks.callback(child.register_forward_hook(after(path)).remove)
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        try:
            module(*inputs)
        except Exception as failed:  # whatever the user's forward() raises
            raise failing(failed) from failed
        finally:
            for name, value in module.named_buffers():
                value.copy_(buffers[name])
    return seen


def failing(error: Exception) -> UnsupportedNetworkError:
    """What to say of a forward() that raises."""
    first = (str(error).strip() or "no message").splitlines()[0]
    remedy = "give attach() an input it takes"
    if "more than 1 value per channel" in first:
        remedy = "a batch normalisation needs an example input of at least 2 samples"
    return UnsupportedNetworkError(f"forward() fails on the example input: {type(error).__name__}: {first}; {remedy}")


def _innermost_refused(module: nn.Module, calls: dict[str, _Recorded], error: Exception) -> tuple[str, Exception]:
    """The deepest submodule that fails to export by itself on the inputs it gets, and its error."""
    found, cause = "", error
    for path, call in calls.items():
        if path and path.startswith(f"{found}." if found else ""):
            try:
                list(_programs(module.get_submodule(path), *call.inputs[0]))
            except Exception as refused:  # as above
                found, cause = path, refused
    return found, cause

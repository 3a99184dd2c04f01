"""The graphs of a network, from torch.export: one for every way that its branches on data can go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

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

    def forward(self, *inputs: Any) -> Any:
        with self.mode:
            return self.module(*inputs)


def _programs(module: nn.Module, inputs: tuple[Any, ...]) -> Iterator[torch.export.ExportedProgram]:
    pending: list[list[bool]] = [[]]
    for _ in range(MAX_PATHS):
        if not pending:
            return
        script = pending.pop()
        mode = _Decide(script)
        yield torch.export.export(_Scripted(module, mode), inputs, strict=False)
        pending += [[*mode.taken[:at], True] for at in range(len(script), len(mode.taken))]
    raise UnsupportedNetworkError(f"the network branches on its data in more than {MAX_PATHS} ways")


def programs(module: nn.Module, inputs: tuple[Any, ...]) -> list[torch.export.ExportedProgram]:
    """Every graph of ``module``; parameters in them are named ``module.<path>``.

    Raises:
        UnsupportedNetworkError: torch.export cannot follow it; the message names the innermost module that it refuses.
    """
    try:
        with _quiet():
            return list(_programs(module, inputs))
    except UnsupportedNetworkError:
        raise
    except Exception as error:  # torch.export raises many types; all mean that it cannot follow this module
        with _quiet():
            path, cause = _innermost_refused(module, inputs, error)
        where = f"module '{path}' ({type(module.get_submodule(path)).__name__})" if path else "the network's forward()"
        first = (str(cause).strip() or "no message").splitlines()[0]
        raise UnsupportedNetworkError(
            f"{where} cannot be traced: {type(cause).__name__}: {first}; write it with tensor operations that "
            "torch.export follows"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps torch from logging what is about to be said in an error."""
    loggers = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _innermost_refused(module: nn.Module, inputs: tuple[Any, ...], error: Exception) -> tuple[str, Exception]:
    """The deepest submodule that fails to export by itself on the inputs it gets, and its error."""
    seen: dict[str, tuple[Any, ...]] = {}

    def remember(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, args: tuple[Any, ...]) -> None:
            seen.setdefault(path, args)

        return hook

    hooks = [child.register_forward_pre_hook(remember(path)) for path, child in module.named_modules() if path]
    try:
        with torch.no_grad():
            module(*inputs)
    except Exception as failed:  # whatever the user's forward() raises
        first = (str(failed).strip() or "no message").splitlines()[0]
        raise UnsupportedNetworkError(
            f"forward() fails on the example input: {type(failed).__name__}: {first}; give attach() an input it takes"
        ) from failed
    finally:
        for handle in hooks:
            handle.remove()
    found, cause = "", error
    for path, args in seen.items():
        if path.startswith(found):
            try:
                list(_programs(module.get_submodule(path), args))
            except Exception as refused:  # as above
                found, cause = path, refused
    return found, cause

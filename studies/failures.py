"""Why a trial failed, in one line for whoever has to mend it."""

from __future__ import annotations

import errno
import re

from sizer.errors import SizerError
from sizer.packs import is_memory

_LESS = "a smaller batch_size or widths would help, or fewer trials at once (--concurrency; on a GPU --gpus-per-trial)"


def failed(error: BaseException) -> tuple[str, str]:
    """What an exception in a worker makes of its trial: the status, and the reason in one line.

    `error` is the trial's own failure, that of the user's code or of memory. `refused` is what our own code or the
    disk refuses: no result of this trial, as any other would meet the same.
    """
    line = next(iter(str(error).strip().splitlines()), "")
    named = f"{type(error).__name__}: {line}" if line else type(error).__name__
    if is_memory(error) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "error", f"out of memory ({named}): {_LESS}"
    if isinstance(error, SizerError | OSError):
        return "refused", line or type(error).__name__
    return "error", named


def deaths(said: str) -> list[str]:
    """What Ray says of each death of a trial's workers, in one line.

    More is not kept: among it are the commands of whatever else runs on the machine.

    Args:
        said: The file in which Tune writes down the failures of a trial.
    """
    parts = re.split(r"^Failure # .*\n", said, flags=re.MULTILINE)[1:]
    return [next(iter(part.strip().splitlines()), "") for part in parts]


def died(said: list[str]) -> str:
    """Why a trial is given up whose workers died, as `deaths` gives it."""
    if for_memory(said):
        return f"its worker was ended {len(said)} times because its machine ran out of memory: {_LESS}"
    # Ray cannot tell these apart.
    why = "it crashed, as by os._exit or a fault in compiled code, or the system killed it for want of memory"
    return f"its worker died {len(said)} times: {why}"


def for_memory(said: list[str]) -> bool:
    """Whether Ray ended the worker that died last because its machine ran out of memory."""
    return bool(said) and "running low on memory" in said[-1]

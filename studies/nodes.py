"""The nodes of the Ray cluster that this process is connected to: what fits on them, and what they can reach."""

from __future__ import annotations

import contextlib
import io
import os
import secrets
from collections.abc import Iterator
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from sizer.errors import InputError
from studies.files import Files, at

_NAME_IT = "put it where every node sees it, or name such a folder, or s3://BUCKET/PREFIX, with --files"
_ANSWERS_WITHIN = 120.0


def alive() -> list[dict[str, Any]]:
    """The nodes, as Ray describes them."""
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray has no types for it


def fitting(cpus: float, gpus: float) -> int:
    """How many trials that take so much fit at once.

    Raises:
        InputError: No node has so much.
    """
    nodes = [node["Resources"] for node in alive()]
    wanted = {kind: share for kind, share in (("CPU", cpus), ("GPU", gpus)) if share}
    fits = sum(int(min(node.get(kind, 0.0) / share for kind, share in wanted.items()) + 1e-9) for node in nodes)
    if fits < 1:
        most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in ("CPU", "GPU")}
        raise InputError(
            f"no machine has {cpus:g} CPUs and {gpus:g} GPUs for a trial: the largest has"
            f" {most['CPU']:g} CPUs and {most['GPU']:g} GPUs"
        )
    return fits


def check(shared: Files | None) -> None:
    """Makes sure that every node runs our code, reads in a place what is written here, and writes what is read here.

    Two nodes of one machine are two nodes: each may see other folders than this process.

    Args:
        shared: The files of the place; left as they were. None if nobody named one: this machine's own will do where
            it is the only node.

    Raises:
        InputError: A node does not; the line names it.
    """
    if shared is None:
        if len(alive()) > 1:
            raise InputError(f"there are several nodes, and nobody said where files go: {_NAME_IT}")
        return
    said = secrets.token_hex(16)
    with _probe(shared, said) as probe:
        look: Any = ray.remote(num_cpus=0, max_retries=0)(_look)
        asked = []
        for node in alive():
            on = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked.append((node, look.options(scheduling_strategy=on).remote(shared.place, probe, node["NodeID"], said)))
        for node, answer in asked:
            wrong = _answer(answer)
            if not wrong and _read(shared, f"{probe}/{node['NodeID']}") != said:
                wrong = f"writes in {shared.place} what is not seen here: {_NAME_IT}"
            if wrong:
                name = f"{node['NodeManagerHostname']}, {node['NodeManagerAddress']}"
                raise InputError(f"node {node['NodeID'][:8]} ({name}) {wrong}")


@contextlib.contextmanager
def _probe(shared: Files, said: str) -> Iterator[str]:
    """A folder in the place, with a file `here`; gone afterwards, and so is the place if it was not there."""
    folder = shared.folder
    fresh = [each for each in (folder, *folder.parents) if not each.exists()] if folder is not None else []
    probe = f"seen-{secrets.token_hex(8)}"
    try:
        try:
            shared.make(probe)
            shared.put(io.BytesIO(said.encode()), f"{probe}/here")
        except OSError as error:
            raise InputError(f"{shared.place} cannot be written here: {error.strerror or error}") from None
        yield probe
    finally:
        shared.clear(probe)
        for each in fresh:
            with contextlib.suppress(OSError):
                each.rmdir()


def _look(place: str, probe: str, name: str, said: str) -> str:
    """On a node: reads what the driver wrote, and writes the same under the node's name; gives what went wrong."""
    try:
        shared = at(place)
        if _read(shared, f"{probe}/here") != said:
            return f"does not see {place}: {_NAME_IT}"
        shared.put(io.BytesIO(said.encode()), f"{probe}/{name}")
    except OSError as error:
        return f"cannot write in {place} as user {os.getuid()}: {error.strerror or error}"
    except InputError as error:
        return f"says: {error}"
    return ""


def _read(shared: Files, name: str) -> str | None:
    try:
        with shared.open(name) as file:
            return file.read().decode()
    except OSError:
        return None


def _answer(reference: Any) -> str:
    try:
        return str(ray.get(reference, timeout=_ANSWERS_WITHIN))
    except ray.exceptions.GetTimeoutError:
        return f"did not answer within {_ANSWERS_WITHIN:.0f} s"
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return f"cannot run a trial: {lines[-1] if lines else type(error).__name__}"

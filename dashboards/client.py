"""The evaluations of a server: what `dashboards.source.Local` reads in a database, asked of a `sizer dashboard`."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx
import pandas as pd
import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dashboards.gate import read_token
from dashboards.models import repr_digest
from sizer import Architecture
from sizer.errors import InputError, UnknownNameError
from studies.query import HISTORY, TRIALS, frame
from studies.standing import ArmStanding, Standing, Unusual

TOKEN, TOKEN_FILE = "SIZER_TOKEN", "SIZER_TOKEN_FILE"
FOUND = (*HISTORY, "method", "knob_name", "seed", "status", "fold", "learning_rate", "units")
_TIMEOUT = httpx.Timeout(120, connect=10)


def token_given(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token of the environment, or of the file that it names; None where neither is set.

    Raises:
        InputError: The file has none.
    """
    if token := environment.get(TOKEN):
        return token.strip()
    return read_token(Path(file)) if (file := environment.get(TOKEN_FILE)) else None


class Remote:
    """A server's evaluations.

    Args:
        address: `http://HOST:PORT`.
        token: What it lets in; None asks without one.

    Raises:
        InputError: It is no such address, does not answer, or is of another version.
    """

    def __init__(self, address: str, token: str | None) -> None:
        self.address = _plain(address)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        if token and not (token.isascii() and token.isprintable()):
            raise InputError(f"the token in {TOKEN} has characters that cannot be sent: copy it anew")
        # A proxy of the environment is for other machines than this one.
        proxied = not _is_here(self.address)
        self._http = httpx.Client(base_url=self.address, headers=headers, timeout=_TIMEOUT, trust_env=proxied)
        try:
            self._check_version()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Remote:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connection."""
        self._http.close()

    def plan_names(self) -> list[str]:
        return [plan["name"] for plan in self.plans()]

    def plans(self) -> list[dict[str, Any]]:
        """The evaluations: name, state, driver, planned and ended trials; those on their way, too."""
        found: list[dict[str, Any]] = self._get("plans")
        return found

    def standing(self, name: str) -> Standing:
        said = self._get("status", plan=name)
        arms = tuple(ArmStanding(**arm) for arm in said["arms"])
        return Standing(**{**said, "arms": arms, "unusual": tuple(Unusual(**each) for each in said["unusual"])})

    def spec(self, name: str) -> dict[str, Any]:
        return dict(self._get("spec", plan=name))

    def data(self, name: str) -> dict[str, Any]:
        return dict(self._get("data", plan=name))

    def trials(self, name: str) -> pd.DataFrame:
        return frame(self._get("trials", plan=name), TRIALS)

    def history(self, name: str) -> pd.DataFrame:
        return frame(self._get("history", plan=name), HISTORY)

    def driver(self, name: str) -> str:
        return str(self._get("driver", plan=name)["driver"])

    def best(self, name: str, arm: str | None = None, **limits: Any) -> pd.Series[Any]:
        return frame([self._get("best", plan=name, arm=arm, **limits)], FOUND).iloc[0]

    def front(self, name: str, arm: str | None = None) -> pd.DataFrame:
        return frame(self._get("front", plan=name, arm=arm), FOUND)

    def architecture(self, name: str, row: pd.Series[Any]) -> tuple[Architecture, dict[str, Tensor]]:
        chosen = {"plan": name, "trial_id": int(row["trial_id"]), "epoch": int(row["epoch"])}
        found = Architecture.from_json(self._asked("GET", "architecture", params=chosen).text)
        return found, self._weights(chosen)

    def submit(self, submission: Mapping[str, Any]) -> list[dict[str, str]]:
        """Starts a plan there, as `dashboards.models.Submission` says it; gives names and states."""
        started: list[dict[str, str]] = self._value(self._asked("POST", "plans", json=submission))
        return started

    def stop(self, name: str) -> str:
        """Asks whoever runs a plan there to end; gives who that is."""
        return str(self._value(self._asked("POST", "stop", params={"plan": name}))["asked"])

    def _weights(self, chosen: Mapping[str, Any]) -> dict[str, Tensor]:
        """The weights, if they are what the server says they are."""
        answer = self._asked("GET", "weights", params=chosen)
        if answer.headers.get("repr-digest") != repr_digest(answer.content):
            raise InputError(f"the weights that {self.address} sent are not whole (SHA-256 differs): ask again")
        try:
            return dict(safetensors.torch.load(answer.content))
        except SafetensorError as error:
            raise self._stranger(f"its weights are none, {error}") from None

    def _get(self, what: str, **params: Any) -> Any:
        given = {key: value for key, value in params.items() if value is not None}
        return self._value(self._asked("GET", what, params=given))

    def _value(self, answer: httpx.Response) -> Any:
        try:
            return answer.json()
        except ValueError:
            raise self._stranger("it sent no JSON") from None

    def _asked(self, method: str, what: str, **more: Any) -> httpx.Response:
        """The answer of a route.

        Raises:
            InputError: What the server refuses, in its words; or it does not answer as sizer does.
        """
        answer = self._sent(method, what, **more)
        if answer.status_code == 401:
            raise InputError(
                f"{self.address} wants {'another' if 'authorization' in self._http.headers else 'a'} token: set {TOKEN}"
                f" or {TOKEN_FILE} to the one that it was started with"
            )
        if answer.is_success:
            return answer
        if (detail := _said(answer, "detail")) is None:
            raise self._stranger(f"it answered {answer.status_code}")
        raise (UnknownNameError if answer.status_code == 404 else InputError)(f"{self.address}: {detail}")

    def _sent(self, method: str, what: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, f"/v1/{what}", **more)
        except httpx.TimeoutException:
            raise InputError(f"{self.address} did not answer in time: try again") from None
        except httpx.TransportError as error:
            reason = str(error) or type(error).__name__
            raise InputError(f"no server at {self.address} ({reason}): `sizer dashboard` starts one") from None

    def _check_version(self) -> None:
        answer = self._sent("GET", "health")
        if (theirs := _said(answer, "version")) is None:
            raise self._stranger(f"it answered {answer.status_code}")
        ours = version("sizer")
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            raise InputError(f"{self.address} is sizer {theirs}, this is {ours}: use the same version on both sides")

    def _stranger(self, what: str) -> InputError:
        return InputError(f"what listens at {self.address} is no sizer ({what}): give the address of `sizer dashboard`")


def _plain(address: str) -> str:
    """An address without a path.

    Raises:
        InputError: It is none, or holds a token: addresses are seen and kept by many.
    """
    try:
        parts = urlsplit(address)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        raise InputError("--server is no address: give one such as http://localhost:8080") from None
    if parts.query or parts.username or parts.password or parts.fragment:
        raise InputError(f"--server takes the address alone, as http://localhost:8080; the token goes into {TOKEN}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"--server must be an address such as http://localhost:8080, got {address!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{host}{port}"


def _is_here(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _said(answer: httpx.Response, field: str) -> str | None:
    """A text field of an answer; None where it is no JSON object or has none."""
    try:
        value = answer.json().get(field)
    except (ValueError, AttributeError):
        return None
    return value if isinstance(value, str) else None

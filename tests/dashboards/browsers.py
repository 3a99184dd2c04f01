"""Debian's Chromium, driven by Playwright; it reaches this machine and no other."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = shutil.which("chromium")
needed = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


@dataclass
class Opened:
    """A page, and what it complained of.

    Attributes:
        page: Playwright's.
        complaints: What stood in its console as an error or a warning, and what its scripts raised.
    """

    page: Page
    complaints: list[str] = field(default_factory=list)

    def until(self, script: str) -> None:
        """Waits until it is true; Playwright's own waiting would evaluate strings, which the pages' policies forbid."""
        deadline = time.monotonic() + 20
        while not self.page.evaluate(script):
            assert time.monotonic() < deadline, f"never came true: {script}"
            self.page.wait_for_timeout(50)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """The browser."""
    flags = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, width: int = 1400, scheme: Any = "light", **more: Any) -> Iterator[Opened]:
    """A page of its own, of a window so wide, for a reader who wants it light or dark."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, **more)
    found = Opened(context.new_page())
    found.page.set_default_timeout(20_000)
    kinds = ("error", "warning")
    found.page.on("console", lambda said: found.complaints.append(said.text) if said.type in kinds else None)
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    try:
        yield found
    finally:
        context.close()

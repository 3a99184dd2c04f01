"""Our pages in a real browser, of a sweep that the command line started: live, sorted, filtered, sized, taken away."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, expect

import sizer
from studies.database import locate
from tests.dashboards.browsers import chromium, needed, opened
from tests.dashboards.served import READ, Served, served

pytestmark = [pytest.mark.alone, needed]
PLAN = """
name = "watched"
data = "digits"
network = "mlp"
widths = [60, 30]
epochs = 100
trials = 5
batch_size = 64

[arms.shrinknets]
lambda = { low = 1e-3, high = 1e-1 }

[arms.fixed]
widths = { low = 4, high = 60 }
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    (folder / "plan.toml").write_text(PLAN)
    locate(folder / "sizer.db")[0].create()
    return folder


@pytest.fixture(scope="module")
def watched(folder: Path, browser: Browser) -> Iterator[Served]:
    """A server, whose pages were open while a sweep ran that the command line started."""
    with served(folder / "sizer.db") as server, opened(browser) as found:
        page = found.page
        page.goto(f"{server.url}/?token={READ}")
        expect(page.get_by_text("Nothing here yet")).to_be_visible()
        command = [sys.executable, "-m", "dashboards", "sweep", "plan.toml", "--pack", "1"]
        sweep = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "COLUMNS": "80"}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            page.get_by_role("link", name="watched", exact=True).click(timeout=90_000)
            ended = page.locator("#ended")
            seen = []
            while not seen or seen[-1] != "10":
                expect(ended).not_to_have_text(seen[-1] if seen else "", timeout=90_000)
                seen.append(ended.inner_text())
            assert len(seen) > 3, f"the number followed the sweep: {seen}"
            expect(page.locator("#head .state")).to_have_text("done", timeout=30_000)
            assert sweep.wait(60) == 0
        finally:
            if sweep.poll() is None:
                sweep.send_signal(signal.SIGINT)
            _, error = sweep.communicate(timeout=30)
        assert not error, error
        assert found.complaints == []
        yield server


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
@pytest.mark.parametrize("path", ["/", "/evaluation/watched", "/trial/1", "/knob/watched", "/evaluation/nobody"])
def test_a_page_fits_its_window_and_is_accessible(
    browser: Browser, watched: Served, path: str, scheme: str, width: int
) -> None:
    with opened(browser, width, scheme) as found:
        found.page.goto(f"{watched.url}{path}?token={READ}")
        found.until("[...document.querySelectorAll('.drawing[id]')].every(p => p.querySelector('.trace path'))")
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        result = Axe().run(found.page)
        assert result.violations_count == 0, result.generate_report()
        missing = ["Failed to load resource: the server responded with a status of 404 (Not Found)"]
        assert found.complaints == (missing if path.endswith("nobody") else [])


def test_the_table_is_sorted_and_filtered(browser: Browser, watched: Served) -> None:
    with opened(browser) as found:
        page = found.page
        page.goto(f"{watched.url}/evaluation/watched?token={READ}")
        rows = page.locator("#trials tbody tr")
        expect(rows).to_have_count(10)
        head = page.get_by_role("columnheader", name="validation")
        head.get_by_role("button").focus()
        page.keyboard.press("Enter")
        expect(head).to_have_attribute("aria-sort", "descending")
        told = [
            float(text.removesuffix(" %")) for text in page.locator("#trials tbody td:nth-child(5)").all_inner_texts()
        ]
        assert told == sorted(told, reverse=True)
        head.get_by_role("button").click()
        expect(head).to_have_attribute("aria-sort", "ascending")
        page.get_by_label("Words in it").fill("lambda")
        expect(rows).to_have_count(5)
        expect(page.locator("#counted")).to_have_text("5 of 10 trials")
        page.locator("#filter-arm").select_option("fixed")
        expect(rows).to_have_count(0)
        page.get_by_label("Words in it").fill("complete")
        expect(rows).to_have_count(5)
        assert found.complaints == []


def test_the_budget_answers_and_its_network_is_taken_away(browser: Browser, watched: Served, tmp_path: Path) -> None:
    with opened(browser) as found:
        page = found.page
        page.goto(f"{watched.url}/evaluation/watched?token={READ}")
        shown, limit = page.locator("#offered [data-of]:visible"), page.locator("#limit")
        expect(shown).to_have_count(1)
        largest = shown.inner_text()
        limit.focus()
        page.keyboard.press("Home")
        expect(shown).to_have_count(1)
        assert shown.inner_text() != largest
        most = int(re.sub(r"\D", "", page.locator("#limit-told").inner_text()))
        parameters = int(re.search(r"([\d,]+) parameters", shown.inner_text())[1].replace(",", ""))  # type: ignore[index]
        assert parameters <= most
        for name in ("architecture.json", "weights.safetensors"):
            with page.expect_download() as started:
                shown.get_by_role("link", name=name).click()
            started.value.save_as(tmp_path / name)
        network = sizer.load(tmp_path)
        assert sum(each.numel() for each in network.parameters()) == parameters
        assert network(torch.zeros(1, *sizer.architecture.read(tmp_path).input_shape)).shape == (1, 10)
        page.get_by_label("FLOPs of a sample").check()
        expect(page.locator("#limit-told")).to_have_text(re.compile("FLOPs"))
        assert found.complaints == []


def test_a_trial_is_opened_drawn_beside_others_and_found_in_optuna_dashboard(
    browser: Browser, watched: Served, tmp_path: Path
) -> None:
    with opened(browser) as found:
        page = found.page
        page.goto(f"{watched.url}/evaluation/watched?token={READ}")
        page.get_by_text("Best so far").or_(page.locator("#offered [data-of]:visible a").first).first.click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("trial")
        expect(page.get_by_role("img", name="Architecture")).to_be_visible()
        with page.expect_download() as started:
            page.get_by_role("link", name="network.onnx").click()
        started.value.save_as(tmp_path / "network.onnx")
        import onnxruntime

        session = onnxruntime.InferenceSession(str(tmp_path / "network.onnx"))
        (given,) = session.get_inputs()
        (logits,) = session.run(None, {given.name: torch.zeros(3, *given.shape[1:]).numpy()})
        assert logits.shape == (3, 10)
        page.get_by_role("link", name="This trial in Optuna Dashboard").click()
        expect(page.get_by_text(re.compile("watched/")).first).to_be_visible()
        page.get_by_role("link", name="To sizer's pages").click()
        expect(page.get_by_role("heading", name="Evaluations")).to_be_visible()
        assert found.complaints == []

"""In a real browser: the report opens offline, all of it drawn; what is served runs under its policy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from dashboards import report
from studies.compare import compare
from tests.dashboards.browsers import chromium, needed, opened
from tests.dashboards.served import READ, Served
from tests.frames import evaluation, without_result

pytestmark = [pytest.mark.alone, needed]
DRAWN = "document.querySelectorAll('.drawing .trace path').length > 0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a small evaluation."""
    trials, history = evaluation(trials=6)
    trials = without_result(trials, "fixed", 1, "FAIL", "error", "out of memory")
    front = history.merge(trials[["trial_id", "knob_name", "status"]], on="trial_id").nlargest(3, "val_accuracy")
    path = tmp_path_factory.mktemp("browser") / "report.html"
    report.write(path, report.render("demo", compare(trials, history), trials, history, front))
    return path


def test_every_figure_of_the_report_is_drawn_and_nothing_is_complained_of(browser: Browser, report_file: Path) -> None:
    with opened(browser) as found:
        found.page.goto(report_file.as_uri())
        found.until(DRAWN)
        undrawn = "[...document.querySelectorAll('.drawing[id]')].filter(p => !p.querySelector('.trace path'))"
        assert found.page.evaluate(f"{undrawn}.map(p => p.id)") == []
        assert found.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_of_the_report_is_wider_than_the_window(browser: Browser, report_file: Path, width: int) -> None:
    with opened(browser, width) as found:
        found.page.goto(report_file.as_uri())
        found.until(DRAWN)
        assert found.page.evaluate("document.documentElement.scrollWidth") <= width
        inside = f"[...document.querySelectorAll('.main-svg')].every(p => p.getBoundingClientRect().right <= {width})"
        found.until(inside)


def test_the_figures_follow_the_readers_light_or_dark(browser: Browser, report_file: Path) -> None:
    drawn = "getComputedStyle(document.querySelector('#plot-boxes .xtitle')).fill"
    with opened(browser) as found:
        found.page.goto(report_file.as_uri())
        found.until(f"{drawn} === 'rgb(27, 31, 36)'")
        found.page.emulate_media(color_scheme="dark")
        found.until(f"{drawn} === 'rgb(230, 230, 230)'")
        assert found.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 23)"
        assert found.complaints == []


def test_pointing_at_a_trial_shows_its_widths(browser: Browser, report_file: Path) -> None:
    with opened(browser) as found:
        found.page.goto(report_file.as_uri())
        mark = found.page.locator("#plot-size .trace path.point").last
        mark.scroll_into_view_if_needed()
        mark.hover(force=True)
        expect(found.page.locator("#plot-size .hoverlayer")).to_have_text(re.compile(r"dense1 \d+, dense2 \d+"))


def test_what_is_served_runs_under_its_policy_and_nothing_is_complained_of(browser: Browser, service: Served) -> None:
    """A page of Optuna Dashboard and the report are all that their policies allow."""
    with opened(browser) as found:
        found.page.goto(f"{service.url}/dashboard/studies/1?token={READ}")
        assert found.page.url == f"{service.url}/dashboard/studies/1"
        found.until("document.querySelectorAll('.js-plotly-plot .main-svg').length > 1")
        expect(found.page.get_by_text("small/shrinknets").first).to_be_visible()
        assert found.complaints == []
        # The policy is there: a script that is not the page's own does not run.
        inject = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
        found.page.evaluate(inject)
        assert found.page.evaluate("window.ran") is None
        (complaint,) = found.complaints
        assert "Content Security Policy" in complaint
        found.complaints.clear()
        found.page.goto(f"{service.url}/report/small")
        found.until(DRAWN)
        assert found.complaints == []

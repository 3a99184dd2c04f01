"""In a real browser: the report opens offline, all of it drawn; what is served runs under its policy."""

import shutil
import time
from collections.abc import Iterator
from typing import Any

import pytest

from dashboards import report
from studies.compare import compare
from tests.dashboards.served import READ, Served
from tests.frames import evaluation, without_result

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="chromium and chromium-driver are not installed"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser that reaches this machine and no other."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in ("headless=new", "no-sandbox", "disable-gpu", "no-first-run", "disable-background-networking"):
        options.add_argument(f"--{flag}")
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of a small evaluation, opened."""
    trials, history = evaluation(trials=6)
    trials = without_result(trials, "fixed", 1, "FAIL", "error", "out of memory")
    front = history.merge(trials[["trial_id", "knob_name", "status"]], on="trial_id").nlargest(3, "val_accuracy")
    path = tmp_path_factory.mktemp("browser") / "report.html"
    report.write(path, report.render("demo", compare(trials, history), trials, history, front))
    browser.get(path.as_uri())
    return browser


def wait_until(page: Any, script: str) -> None:
    deadline = time.monotonic() + 20
    while not page.execute_script(f"return {script}"):
        assert time.monotonic() < deadline, f"never came true: {script}"
        time.sleep(0.1)


def emulate(page: Any, width: int, scheme: str) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    )
    scheme_feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme_feature)


def test_every_figure_is_drawn_and_nothing_is_complained_of(page: Any) -> None:
    wait_until(page, "document.querySelectorAll('.drawing .trace path').length > 0")
    undrawn = "[...document.querySelectorAll('.drawing[id]')].filter(p => !p.querySelector('.trace path'))"
    empty = page.execute_script(f"return {undrawn}.map(p => p.id)")
    assert empty == []
    assert page.get_log("browser") == []


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    emulate(page, width, "light")
    wait_until(page, f"innerWidth === {width} && document.documentElement.scrollWidth <= {width}")
    inside = (
        f"[...document.querySelectorAll('.drawing .main-svg')].every(p => p.getBoundingClientRect().right <= {width})"
    )
    wait_until(page, inside)


def test_the_figures_follow_the_readers_light_or_dark(page: Any) -> None:
    drawn = "getComputedStyle(document.querySelector('#plot-boxes .xtitle')).fill"
    emulate(page, 1280, "light")
    wait_until(page, f"{drawn} === 'rgb(27, 31, 36)'")
    emulate(page, 1280, "dark")
    wait_until(page, f"{drawn} === 'rgb(230, 230, 230)'")
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(17, 20, 23)"
    assert page.get_log("browser") == []


def test_pointing_at_a_trial_shows_its_widths(page: Any) -> None:
    emulate(page, 1280, "light")
    from selenium.webdriver.common.action_chains import ActionChains

    page.execute_script("document.querySelector('#plot-size').scrollIntoView({block: 'center'})")
    mark = page.find_elements("css selector", "#plot-size .trace path.point")[-1]
    ActionChains(page).move_to_element(mark).perform()
    label = "document.querySelector('#plot-size .hoverlayer')?.textContent"
    wait_until(page, f"/dense1 \\d+, dense2 \\d+/.test({label} ?? '')")


def test_what_is_served_runs_under_its_policy_and_nothing_is_complained_of(browser: Any, service: Served) -> None:
    """Last, as it leaves the report. A page of Optuna Dashboard and the report are all that their policies allow."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get(f"{service.url}/dashboard/studies/1?token={READ}")
    assert browser.current_url == f"{service.url}/dashboard/studies/1"
    wait_until(browser, "document.querySelectorAll('.js-plotly-plot .main-svg').length > 1")
    wait_until(browser, "document.body.innerText.includes('small/shrinknets')")
    assert browser.get_log("browser") == []
    # The policy is there: a script that is not the page's own does not run.
    inject = "const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s)"
    browser.execute_script(inject)
    assert browser.execute_script("return window.ran") is None
    (complaint,) = browser.get_log("browser")
    assert "Content Security Policy" in complaint["message"]
    browser.get(f"{service.url}/report/small")
    wait_until(browser, "document.querySelectorAll('.drawing .trace path').length > 0")
    assert browser.get_log("browser") == []

"""The report is one file that needs nothing else, and stays the same as long as the data does."""

import re
from pathlib import Path

import pytest

from dashboards import report
from sizer.errors import InputError
from studies.compare import compare
from tests.frames import LAYERS, evaluation, without_result


def rendered(trials: int = 4, name: str = "demo", description: str = "", reason: str = "") -> str:
    frame, history = evaluation(trials=trials)
    if reason:
        frame = without_result(frame, "fixed", 1, "FAIL", "error", reason)
    front = history.merge(frame[["trial_id", "knob_name", "status"]], on="trial_id").nlargest(3, "val_accuracy")
    return report.render(name, compare(frame, history), frame, history, front, description, {"data": "digits"})


def own_part(html: str) -> str:
    """The page without plotly.js, which names addresses that it never asks here."""
    return re.sub(r"<script>/\*.*?</script>", "", html, count=1, flags=re.DOTALL)


def test_the_same_data_gives_the_same_bytes() -> None:
    assert rendered() == rendered()


def test_the_page_names_no_other_address_and_carries_plotly_once() -> None:
    html = rendered()
    assert html.count("plotly.js v") == 1
    assert not re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", own_part(html))
    assert not re.findall(r"<(?:link|script|img)[^>]+(?:src|href)=\"(?!data:)", html)
    assert "default-src 'none'" in html


def test_every_place_for_a_figure_has_its_figure() -> None:
    html = own_part(rendered())
    places = re.findall(r'id="(plot-[a-z0-9-]+)"', html)
    assert len(places) == len(set(places)) == 10
    assert all(f'"{place}":{{"data"' in html for place in places)


def headings(html: str) -> list[str]:
    return re.findall("<h[23]>([^<]+)</h[23]>", own_part(html))


def test_what_layers_lose_is_shown_where_their_start_is_known() -> None:
    trials, history = evaluation(trials=3)
    widths = {"shrinknets": dict.fromkeys(LAYERS, 100), "auto-sizing": dict.fromkeys(LAYERS, 2)}
    html = report.render("demo", compare(trials, history), trials, history, history.iloc[:0], starts=widths)
    assert "What each layer loses" in headings(html)
    assert "auto-sizing ended larger than it started and is left out." in html
    assert "shrinknets ended larger" not in html
    assert "From several starting widths" not in headings(html)


@pytest.mark.parametrize(("other", "shown"), [(20, True), (100, False)])
def test_arms_of_one_method_are_drawn_together_where_they_start_apart(other: int, shown: bool) -> None:
    trials, history = evaluation(trials=2)
    trials.loc[trials["arm"] == "auto-sizing", "method"] = "shrinknets"
    widths = {"shrinknets": dict.fromkeys(LAYERS, 100), "auto-sizing": dict.fromkeys(LAYERS, other)}
    html = report.render("demo", compare(trials, history), trials, history, history.iloc[:0], starts=widths)
    assert ("From several starting widths" in headings(html)) is shown
    assert ('id="plot-starts-0"' in html) is shown


def test_rounds_are_shown_of_arms_that_noted_any() -> None:
    trials, history = evaluation(trials=1)
    noted = {"initial": 0.9, "parameters": 4321, "rounds": [{"epoch": 4, "accepted": None}]}
    trials["notes"] = [{"activity": noted}, {}, {}, {}]
    html = report.render("demo", compare(trials, history), trials, history, history.iloc[:0])
    assert headings(html).count("Round by round") == 1
    assert own_part(html).count("<td>4,321</td>") == 1, "no round was kept"
    assert 'id="plot-rounds-0"' in html
    assert 'id="plot-rounds-1"' not in html
    assert headings(html).count("Where each layer ends") == 2
    assert "What each layer loses" not in headings(html), "where no start is known"


def test_layers_are_told_apart_only_where_there_are_several() -> None:
    trials, history = evaluation(trials=2)
    for frame in (trials, history):
        frame["widths"] = [{"dense1": widths["dense1"]} for widths in frame["widths"]]
    html = report.render("demo", compare(trials, history), trials, history, history.iloc[:0])
    assert "Where each layer ends" not in headings(html)


def test_what_people_wrote_is_shown_and_not_run() -> None:
    html = own_part(rendered(description="<script>alert(1)</script>", reason="</script><b>boom</b>"))
    assert "<script>alert(1)</script>" not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "&lt;/script&gt;&lt;b&gt;boom" in html
    assert html.count("</script>") == 3
    assert len(re.findall(r'<script type="application/json" id="[a-z]+">[^<]+</script>', html)) == 2


def test_an_evaluation_that_has_only_begun_has_a_report_too() -> None:
    trials, history = evaluation(trials=1, arms=["shrinknets", "fixed"])
    for arm in ("shrinknets", "fixed"):
        trials = without_result(trials, arm, 0, "RUNNING", "", "")
    none = history.iloc[:0]
    html = report.render("demo", compare(trials, none), trials, none, none)
    assert "too few to compare" in html
    assert "plot-boxes" not in html


def test_an_unchanged_report_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert report.write(path, "one") is True
    before = path.stat().st_mtime_ns
    assert report.write(path, "one") is False
    assert path.stat().st_mtime_ns == before
    assert report.write(path, "two") is True
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_a_report_goes_where_there_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        report.write(tmp_path / "nowhere" / "report.html", "one")
    with pytest.raises(InputError, match="is a folder: name a file"):
        report.write(tmp_path, "one")


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.html"
    report.write(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space") as error:
        report.write(path, "new")
    assert error.value.filename == str(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]

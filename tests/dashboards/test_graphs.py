"""A graph's drawing shows its neurons and synapses, and a picture stands beside what a network makes of it."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from dashboards import commands, graphs
from dashboards.pages.evaluation import evaluation
from dashboards.pages.knob import knob
from dashboards.pages.trial import trial
from dashboards.repeating import repeating
from dashboards.source import Local
from sizer import Architecture, datasets, networks
from sizer.graph import Graph
from studies import query, selection
from studies.database import open_database
from studies.plan import Plan
from tests.dashboards.browsers import chromium, needed, opened
from tests.dashboards.served import READ, served
from tests.dashboards.swept import assert_repeated, sweep_here


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small picture, really learned."""
    folder = tmp_path_factory.mktemp("graphs")
    pixels = np.add.outer(np.arange(40) * 3, np.arange(50) * 2).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "slope.png")
    plan = Plan(
        name="slope", data=f"coordinates@{folder / 'slope.png'}", network="graph", widths=[4], epochs=3, trials=2,
        batch_size=64, learning_rate=1e-2,
        arms={"growing": {"settings": {"steps": 3, "starts": 5}}, "fixed": {"widths": {"low": 3, "high": 6}}},
    )  # fmt: skip
    sweep_here(plan, folder / "sizer.db")
    return folder


@pytest.fixture
def swept(folder: Path) -> Local:
    return Local(open_database(folder / "sizer.db"))


def test_every_neuron_and_every_synapse_is_drawn() -> None:
    graph = Graph(2, 1, [(0, 2), (1, 3), (2, 3), (2, 4), (3, 4)], ["relu", "tanh"])
    drawn = graphs.drawing(graph)
    assert drawn.count("<circle") == 5
    assert drawn.count("<path") == 5
    assert "2 neurons on 2 levels, 5 synapses" in drawn
    assert re.search(r"<title>neuron 0: relu, bias 0, level 1</title>", drawn)
    places = [float(x) for x in re.findall(r'cx="(\d+)"', drawn)]
    assert places[0] == places[1] < places[2] < places[3] < places[4]


def test_many_inputs_are_one_bar_and_of_many_synapses_the_strongest_are_drawn() -> None:
    graph = Graph.layered(784, 10, [7, 7])
    drawn = graphs.drawing(graph)
    assert drawn.count("<circle") == 24
    assert drawn.count("<path") == graphs.SYNAPSES
    assert "784 inputs" in drawn
    assert "5,607 synapses, of which the 1,500 strongest are drawn" in drawn


def test_a_picture_stands_beside_what_the_network_makes_of_it(tmp_path: Path) -> None:
    pixels = np.tile(np.linspace(0, 255, 60), (30, 1)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "ramp.png")
    source = f"coordinates@{tmp_path / 'ramp.png'}"
    data = datasets.load(source)
    module = Graph.layered(2, 1, [1])
    with torch.no_grad():  # tanh is nearly straight there
        module.weight.copy_(torch.tensor([1e-3, 0.0, 1e3]))
    architecture = Architecture("graph", (2,), 1, "regression", {"neurons": 1, "synapses": 3}, data.preprocessing)
    shown = graphs.pictures(module, architecture, source)
    assert shown is not None
    first, second = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each)))).astype(int)
        for each in re.findall(r"base64,([A-Za-z0-9+/=]+)", shown)
    )
    assert np.array_equal(first, pixels)
    assert first.shape == second.shape
    assert np.abs(first - second).max() <= 2
    assert graphs.pictures(module, architecture, "coordinates@gone.png") is None
    assert graphs.pictures(module, architecture, "mnist") is None


def test_the_lines_of_a_graphs_trial_train_it_again(swept: Local) -> None:
    spec, trials = swept.spec("slope"), swept.trials("slope")
    row = trials[trials["arm"] == "growing"].iloc[1]
    lines, why = repeating(spec, row.to_dict(), None)
    assert why == ""
    assert_repeated(lines, query.history(swept.database, "slope", [row["trial_id"]]))
    fixed = trials[trials["arm"] == "fixed"].iloc[0].to_dict()
    lines, why = repeating(spec, fixed, None)
    assert (lines, "the layers that it had are Optuna's parameters" in why) == ([], True)


def test_pages_and_report_draw_the_graph(swept: Local) -> None:
    best = selection.best(swept.database, "slope")
    assert set(best["widths"]) == {"neurons", "synapses"}
    assert networks.layered("mlp")
    pages = [trial(swept, int(best["trial_id"])), evaluation(swept, "slope"), knob(swept, "slope")]
    texts = [page.render() for page in pages] + [commands.report(swept, "slope")]
    for text, drawn, pictured in zip(texts, (1, 1, 0, 1), (1, 0, 0, 1), strict=True):
        assert ('aria-label="Graph: ' in text) == drawn
        assert ("What the network makes of it" in text) == pictured


@pytest.mark.alone
@needed
@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1400, "light")])
def test_its_page_fits_its_window_and_is_accessible(folder: Path, swept: Local, width: int, scheme: str) -> None:
    best = int(selection.best(swept.database, "slope")["trial_id"])
    with chromium() as browser, served(folder / "sizer.db") as server, opened(browser, width, scheme) as found:
        for path in (f"/trial/{best}", "/evaluation/slope"):
            found.page.goto(f"{server.url}{path}?token={READ}")
            found.until("[...document.querySelectorAll('.drawing[id]')].every(p => p.querySelector('.trace path'))")
            found.until("[...document.images].every(image => image.naturalWidth > 0)")
            assert found.page.locator("svg.architecture circle").count() > 4
            assert found.page.evaluate("document.documentElement.scrollWidth") <= width
            result = Axe().run(found.page)
            assert result.violations_count == 0, result.generate_report()
        assert found.complaints == []

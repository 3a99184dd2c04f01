"""print(net): every layer with its width and parameters, before => after, in a terminal and in a notebook."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch
from torch import nn

import sizer
from sizer import Net, networks
from sizer.methods import create
from tests.sizer.digit_images import WIDTHS, pictures


def overview_of(module: nn.Module, x: torch.Tensor) -> Net:
    torch.manual_seed(0)
    return sizer.attach(module, x, create("shrinknets", 1e-3))


def mlp() -> Net:
    return overview_of(nn.Sequential(nn.Linear(3, 1200), nn.ReLU(), nn.Linear(1200, 2)), torch.randn(4, 3))


def grouped() -> Net:
    module = nn.Sequential(
        nn.Conv2d(1, 12, 3), nn.GroupNorm(3, 12), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=3), nn.Flatten(),
        nn.Linear(96, 2),
    )  # fmt: skip
    return overview_of(module, torch.randn(2, 1, 8, 8))


def transformer() -> Net:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    body = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    return overview_of(nn.Sequential(nn.Linear(4, 8), body, nn.Linear(8, 3)), torch.randn(2, 3, 4))


def test_it_says_what_sizes_which_network_and_each_width() -> None:
    assert repr(mlp()).splitlines() == [
        "shrinknets(lambda=0.001) on Sequential",
        "  layer           width  parameters",
        "  0               1,200       4,800",
        "  all parameters              7,202",
        "  2: 2 units, fixed: an output of the network",
    ]


def test_after_a_removal_it_says_what_was_before() -> None:
    net = mlp()
    net.remove("0", range(1000))
    net.knob = 0.5
    assert repr(net).splitlines()[:4] == [
        "shrinknets(lambda=0.5) on Sequential",
        "  layer                  width      parameters",
        "  0               1,200 => 200    4,800 => 800",
        "  all parameters                7,202 => 1,202",
    ]


def test_units_of_several_channels_are_told_apart_from_channels() -> None:
    net = grouped()
    net.remove("0", [1])
    assert re.search(r"\n  0 +3 x 4 => 2 x 4 +120 => 80\n", repr(net))
    heads = networks.build("vit", (1, 8, 8), 10, WIDTHS["vit"])
    assert re.search(r"\n  blocks.0.attn.qkv +4 x 32 ", repr(overview_of(heads, torch.randn(2, 1, 8, 8))))


@pytest.mark.parametrize("columns", [80, 120])
def test_fixed_widths_of_one_reason_stand_together_on_lines_that_fit(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = repr(transformer()).splitlines()
    assert max(map(len, lines)) <= columns
    text = " ".join(line.strip() for line in lines)
    together = ", ".join(f"1.layers.{at}.self_attn.in_proj_weight: 24 units" for at in range(4))
    assert f"{together}, fixed:" in text
    assert text.endswith("2: 3 units, fixed: an output of the network")


@pytest.mark.parametrize("name", ["das-conv", "vit"])
def test_every_network_is_a_table_of_straight_columns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    data = pictures(name)
    module = networks.build(name, data.input_shape, data.outputs, WIDTHS[name])
    net = overview_of(module, data.x_train[:2])
    net.remove(next(iter(net.widths)), [0])
    lines = repr(net).splitlines()
    table = lines[1 : 3 + len(net.widths)]
    assert max(map(len, lines)) <= 80
    assert len({len(line) for line in table}) == 1
    assert [line.split()[0] for line in table[1:-1]] == list(net.widths)
    assert all(line == line.rstrip() for line in lines)


class Page(HTMLParser):
    """Checks that tags are closed in order, and collects cells and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.styles: set[str] = set()
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.styles |= {str(value) for name, value in attrs if name == "style"}
        if tag == "tr":
            self.rows.append([])

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1] in {"td", "th"}:
            self.rows[-1].append(data)


def test_a_notebook_gets_the_same_as_a_table_in_its_own_colours() -> None:
    net = mlp()
    net.remove("0", [3])
    page = Page(net._repr_html_())
    assert page.rows == [
        ["layer", "width", "parameters"], ["0", "1,200 => 1,199", "4,800 => 4,796"],
        ["all parameters", "7,202 => 7,196"],
    ]  # fmt: skip
    assert page.styles == {"text-align:left", "text-align:right"}


def test_names_are_text_in_a_notebook_whatever_they_hold() -> None:
    module = nn.Sequential()
    for name, layer in (("<b>&", nn.Linear(3, 4)), ("act", nn.ReLU()), ("</table>", nn.Linear(4, 2))):
        module.add_module(name, layer)
    page = overview_of(module, torch.randn(2, 3))._repr_html_()
    assert Page(page).rows[1][0] == "<b>&"
    assert "<b>&</td>" not in page
    assert "&lt;/table&gt;: 2 units" in page

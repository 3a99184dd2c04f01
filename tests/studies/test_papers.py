"""What the presets say that their papers published: of cells and arms that there are, and nothing that is run."""

from __future__ import annotations

import pytest

from sizer.errors import InputError
from studies import papers, presets
from studies.papers import published
from studies.reading import read_plan

OURS = {"demo", "hyperband", "equal-flops-mlp", "equal-flops-lenet"}


@pytest.mark.parametrize("preset", presets.names())
def test_every_preset_of_a_paper_says_what_was_published_of_its_own_cells_and_arms(preset: str) -> None:
    found = published(preset)
    assert (found is None) == (preset in OURS)
    if found is None:
        return
    plans = {plan.name.partition("/")[2]: plan for plan in read_plan(preset)}
    assert set(found.cells) <= set(plans)
    assert not found.arms or set(plans) == {""}
    for cell, plan in plans.items():
        assert set(found.of(cell)) <= set(plan.arms)
        assert not found.against or found.against in plan.arms
    assert {*found.stands_for, *found.stands_for.values()} <= set(plans)


@pytest.mark.parametrize("preset", sorted(set(presets.names()) - {"demo"}))
def test_every_preset_has_a_small_scale_that_keeps_its_cells_and_arms(preset: str) -> None:
    full, small = (read_plan(preset, scale=scale) for scale in ("full", "small"))
    for plan, reduced in zip(full, small, strict=True):
        assert reduced.name == plan.name.replace(preset, f"{preset}.small", 1)
        assert list(reduced.arms) == list(plan.arms)
        assert "published" not in plan.spec()
        sizes = ("trials", "epochs", "folds", "samples")
        before, after = ([getattr(each, size) or 10**9 for size in sizes] for each in (plan, reduced))
        assert all(new <= old for new, old in zip(after, before, strict=True)) or preset.startswith("das-initial")


def test_a_wrong_table_is_one_line_that_names_the_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(papers.presets, "text", lambda name: '[published]\nsource = "x"\nfalls = "deep"\n')
    with pytest.raises(InputError, match=r"^mine\.published\.falls: .*, got 'deep'$"):
        published("mine")

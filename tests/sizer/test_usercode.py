"""A user's own function is found by its name, taken with what it imports, and refused in one line."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sizer import usercode
from sizer.errors import InputError
from sizer.usercode import Code, find
from tests.sizer import users_code


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return users_code.enter(tmp_path, monkeypatch)


def test_a_function_comes_with_the_modules_beside_it_and_no_others(here: Path) -> None:
    (here / "unrelated.py").write_text("raise RuntimeError")
    code = find("mine:net")
    assert (code.folder, set(code.sources)) == (str(here), {"mine", "blocks"})
    assert code.function().__name__ == "net"


def test_packages_are_taken_with_what_they_import_relatively(here: Path) -> None:
    for folder, text in (("models", ""), ("models/deep", "from ..parts import two\ndef f(): return two()")):
        (here / folder).mkdir()
        (here / folder / "__init__.py").write_text(text)
    (here / "models/parts.py").write_text("def two():\n    from . import numbers_here\n    return numbers_here.TWO")
    (here / "models/numbers_here.py").write_text("TWO = 2")
    code = find("models.deep:f")
    assert set(code.sources) == {"models", "models.deep", "models.parts", "models.numbers_here"}
    assert code() == 2


def test_a_folder_without_init_is_a_package(here: Path) -> None:
    (here / "plain/inside").mkdir(parents=True)
    (here / "plain/inside/deep.py").write_text("def f(): return __name__")
    assert find("plain.inside.deep:f")() == "plain.inside.deep"


def test_the_code_runs_from_its_text_where_its_files_are_not(here: Path) -> None:
    text = find("mine:net").to_json()
    for name in ("mine", "blocks"):
        (here / f"{name}.py").unlink()
    module = Code.from_json(text)((6,), 4)
    assert [type(child).__name__ for child in module][3] == "Residual"


@pytest.mark.parametrize("changed", ["mine", "blocks"])
def test_a_change_of_the_module_or_of_one_beside_it_is_another_hash_and_is_imported(here: Path, changed: str) -> None:
    before = find("mine:net")
    before.function()
    text = (here / f"{changed}.py").read_text()
    (here / f"{changed}.py").write_text(text.replace("(width, inside)", "(width, 2 * inside)").replace("12", "14"))
    after = find("mine:net")
    assert before.sha256 != after.sha256
    assert str(before((6,), 4)) != str(after((6,), 4))
    assert find("mine:net").sha256 == after.sha256


def test_the_plans_folder_comes_before_the_current_one(here: Path) -> None:
    users_code.write(here / "plans", mine="def net(): return 'of the plan'")
    assert find("mine:net").folder == str(here)
    assert find("mine:net", str(here / "plans"))() == "of the plan"
    usercode.look_first(here / "plans")
    assert find("mine:net")() == "of the plan"


def test_an_installed_function_travels_by_name_alone() -> None:
    code = find("torch.nn:Identity")
    assert (code.folder, code.sources) == ("", {})
    assert len(code.sha256) == 64
    assert type(code()).__name__ == "Identity"


def test_a_module_in_use_under_that_name_is_not_pushed_aside(here: Path) -> None:
    (here / "pytest.py").write_text("def f(): pass")
    with pytest.raises(InputError, match="another module pytest is in use already"):
        find("pytest:f").function()
    assert sys.modules["pytest"] is pytest


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("mine:", "named package.module:function, got 'mine:'"),
        ("mine.py:net", "mine.py:net: no module mine.py in .* without .py"),
        ("nowhere.at.all:net", "nowhere.at.all:net: no module nowhere.at.all in"),
        ("__main__:net", "__main__:net: no module __main__"),
        ("mine:nett", r"unknown function of mine \(.*mine.py\) 'nett'; there are: net"),
        ("mine:math", "mine:math is a module, no function"),
        ("broken:f", r"importing broken failed: SyntaxError: .* \(broken.py, line 2\)"),
        (
            "failing:f",
            r"importing failing failed: ModuleNotFoundError: No module named 'nothing' \(failing.py",
        ),
        ("raising:f", r"raising:f raised ZeroDivisionError: division by zero \(raising.py, line 2\)"),
    ],
)
def test_what_cannot_be_called_is_one_line(here: Path, name: str, says: str) -> None:
    users_code.write(here, broken="def f():\n  return (", failing="import nothing", raising="def f():\n  return 1 / 0")
    with pytest.raises(InputError, match=says) as caught:
        find(name)()
    assert "\n" not in str(caught.value)

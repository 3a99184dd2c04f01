"""The papers' evaluations, one .toml each, and a demo; `studies.plan.read_plan` reads them by name."""

from importlib import resources


def names() -> tuple[str, ...]:
    """The presets that there are, in alphabetical order."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def text(name: str) -> str:
    """The TOML text of the preset `name`, one of `names()`."""
    return resources.files(__name__).joinpath(f"{name}.toml").read_text(encoding="utf-8")

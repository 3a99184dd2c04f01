"""A user's own functions, named as `package.module:function`: found, loaded, and sent as source to where they run.

Looked for are they in the folder of the plan, in the current one, then wherever Python looks. A module that is not
installed is taken with the modules beside it that it imports, as text: that is what is hashed, and what travels. A
pickle by value would miss those modules and what a function imports when it is called; Ray's runtime_env sends whole
folders, and cannot be set where Ray runs already.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import json
import re
import site
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.abc import ExecutionLoader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from sizer.errors import InputError, unknown

_NAME = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")
_NOT_THE_USERS = frozenset({"sizer", "studies", "dashboards", *sys.stdlib_module_names})


@dataclass(frozen=True)
class Source:
    """One module: its file, whether it is a package, and its text."""

    file: str
    package: bool
    text: str


@dataclass(frozen=True)
class Code:
    """A function, and the source that it comes from.

    Attributes:
        name: ``package.module:function``.
        folder: where its module was found; "" where it is installed.
        sources: module -> source, of the module and those beside it that it imports; empty where it is installed.
        sha256: of the sources; of an installed module of its own file.
    """

    name: str
    folder: str
    sources: Mapping[str, Source]
    sha256: str

    def function(self) -> Callable[..., Any]:
        """Imports the module and gives the function.

        Raises:
            InputError: the module fails, or has no such function.
        """
        module, function = _parts(self.name)
        _finder.serve(self.sources, module)
        try:
            loaded = importlib.import_module(module)
        except Exception as error:  # whatever the user's module does when it is imported
            raise InputError(f"{self.name}: importing {module} failed: {said(error)}") from error
        if not hasattr(loaded, function):
            own = [key for key, value in vars(loaded).items() if callable(value) and key[0] != "_"]
            near = difflib.get_close_matches(function, own, 6, 0.0)
            where = getattr(loaded, "__file__", None) or "built in"
            wrong = unknown(f"function of {module} ({where})", function, near)
            raise InputError(f"{wrong}; name one as MODULE:FUNCTION")
        found = getattr(loaded, function)
        if not callable(found):
            raise InputError(f"{self.name} is a {type(found).__name__}, no function: name one as MODULE:FUNCTION")
        given: Callable[..., Any] = found
        return given

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function.

        Raises:
            InputError: it raises.
        """
        function = self.function()
        try:
            return function(*arguments)
        except Exception as error:  # whatever the user's function does
            raise InputError(f"{self.name} raised {said(error)}; mend it before anything is trained") from error

    def to_json(self) -> str:
        """Text that ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Code:
        """Reads what ``to_json`` wrote."""
        fields = json.loads(text)
        return cls(**{**fields, "sources": {name: Source(**source) for name, source in fields["sources"].items()}})


def is_named(text: str) -> bool:
    """Whether a network or data set is named as a function."""
    return ":" in text and not text.endswith(".npz")


def look_first(folder: Path) -> None:
    """Puts a folder, such as a plan's, first where modules are looked for."""
    sys.path[:] = [str(folder), *(each for each in sys.path if each != str(folder))]


def find(name: str, folder: str = "") -> Code:
    """Finds a function's source; nothing is imported yet unless it is installed.

    Args:
        name: ``package.module:function``.
        folder: looked in first.

    Raises:
        InputError: it is no such name, or there is no such module.
    """
    module, _ = _parts(name)
    roots = list(_roots(folder))
    sources = _closure(module, roots)
    if sources:
        texts = "\0".join(f"{name}\0{sources[name].text}" for name in sorted(sources))
        root = Path(sources[module].file).parents[module.count(".") + sources[module].package]
        return Code(name, str(root), sources, hashlib.sha256(texts.encode()).hexdigest())
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package above it is not there, or not a package
        spec = None
    # What is still loaded from a file that is gone does not count.
    if spec is None or spec.loader is _finder or module == "__main__":
        places = ", ".join(dict.fromkeys(str(root) for root in roots[: 3 if folder else 2]))
        raise InputError(
            f"{name}: no module {module} in {places} nor installed: name a file as FILE:FUNCTION, without .py, and"
            " start sizer where it lies"
        )
    content = Path(spec.origin).read_bytes() if spec.origin and Path(spec.origin).is_file() else b""
    return Code(name, "", {}, hashlib.sha256(content).hexdigest())


def said(error: Exception) -> str:
    """An exception in one line: type, message, and the line of the user's code that raised it."""
    first = next(iter(str(error).strip().splitlines()), "")
    if isinstance(error, SyntaxError):
        file, line = error.filename or "", error.lineno
        first = error.msg
    else:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
        file, line = (frames[-1].filename, frames[-1].lineno) if frames else ("", None)
    where = f" ({Path(file).name}, line {line})" if file and line else ""
    return f"{type(error).__name__}{': ' if first else ''}{first}{where}"


def _is_users(file: str) -> bool:
    return any(source.file == file for source in _finder.sources.values())


def _parts(name: str) -> tuple[str, str]:
    match = _NAME.fullmatch(name)
    if match is None:
        raise InputError(f"a function of one's own is named package.module:function, got {name!r}")
    return match[1], match[2]


def _roots(folder: str) -> Iterator[Path]:
    """Where modules that are not installed lie: the folder, Python's first place, the current folder, the others."""
    paths = sysconfig.get_paths()
    kept = {paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")}
    kept |= {*site.getsitepackages(), site.getusersitepackages()}
    installed = {Path(each).resolve() for each in kept}
    wanted = [*([folder] if folder else []), *sys.path[:1], str(Path.cwd()), *sys.path[1:]]
    for path in dict.fromkeys(Path(each or ".").resolve() for each in wanted):
        if path.is_dir() and not any(path == each or each in path.parents for each in installed):
            yield path


def _closure(module: str, roots: list[Path]) -> dict[str, Source]:
    """The module and all those beside it that it imports; empty if it lies in none of the folders."""
    found: dict[str, Source] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if not name or name in found or name.partition(".")[0] in _NOT_THE_USERS:
            continue
        source = _located(name, roots)
        if source is not None:
            found[name] = source
            todo += [*_above(name), *_imports(name, source)]
    for name in list(found):
        for package in _above(name):
            # A folder without __init__.py is a package, too.
            folder = Path(found[name].file).parents[name.count(".") - package.count(".") - 1 + found[name].package]
            found.setdefault(package, Source(str(folder / "__init__.py"), True, ""))
    return found if module in found else {}


def _above(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


def _located(name: str, roots: list[Path]) -> Source | None:
    for root in roots:
        path = root.joinpath(*name.split("."))
        for file, package in ((path / "__init__.py", True), (path.with_suffix(".py"), False)):
            if file.is_file():
                return Source(str(file), package, file.read_text(encoding="utf-8", errors="replace"))
    return None


def _imports(name: str, source: Source) -> Iterator[str]:
    """The modules that a source may import, those within its functions too."""
    try:
        tree = ast.parse(source.text)
    except (SyntaxError, ValueError):  # said when it is imported
        return
    package = name if source.package else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (part for alias in node.names for part in (*_above(alias.name), alias.name))
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            yield from (base, *_above(base), *(f"{base}.{alias.name}" for alias in node.names))


class _Finder(MetaPathFinder, ExecutionLoader):
    """Imports modules from the sources it was given, on the machine that has the files as on one that has not."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}

    def serve(self, sources: Mapping[str, Source], wanted: str) -> None:
        """Makes the modules importable; where one has changed since it was imported, all are imported anew."""
        mine = [name for name in sources if self._loaded(name)]
        if any(self.sources[name] != sources[name] for name in mine):
            for name in mine:
                del sys.modules[name]
        other = None if self._loaded(wanted) else getattr(sys.modules.get(wanted), "__file__", None)
        if wanted in sources and other and Path(other).resolve() != Path(sources[wanted].file).resolve():
            raise InputError(
                f"{sources[wanted].file} cannot be imported: another module {wanted} is in use already ({other}); give"
                " yours another name"
            )
        self.sources.update(sources)
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def _loaded(self, name: str) -> bool:
        return name in self.sources and getattr(sys.modules.get(name), "__loader__", None) is self

    def find_spec(self, name: str, path: object = None, target: ModuleType | None = None) -> ModuleSpec | None:
        source = self.sources.get(name)
        if source is None:
            return None
        spec = ModuleSpec(name, self, origin=source.file, is_package=source.package)
        spec.has_location = True
        if source.package:
            spec.submodule_search_locations = [str(Path(source.file).parent)]
        return spec

    def get_filename(self, name: str) -> str:
        return self.sources[name].file

    def get_source(self, name: str) -> str:
        return self.sources[name].text

    def get_code(self, name: str) -> CodeType:
        source = self.sources[name]
        code: CodeType = compile(source.text, source.file, "exec", dont_inherit=True)
        return code

    def is_package(self, name: str) -> bool:
        return self.sources[name].package


_finder = _Finder()

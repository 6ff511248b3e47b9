"""What holds for the whole code base, whichever room a line is written in."""

import ast
import importlib
import io
import re
import tokenize
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import emp_core

CORE = Path(emp_core.__file__).parent
HOUSE = CORE.parent
PACKAGES = [CORE, *sorted(HOUSE.glob("plugins/*/emp_*"))]
SUITES = [HOUSE / "tests", *sorted(HOUSE.glob("plugins/*/tests"))]
PROJECTS = [HOUSE / "pyproject.toml", *sorted(HOUSE.glob("plugins/*/pyproject.toml"))]


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.py"))


CORE_SOURCES = files(CORE)
SOURCES = [path for package in PACKAGES for path in files(package)]
TESTS = [path for suite in SUITES for path in files(suite)]

SERVICE = re.compile(r"comfy|ollama|openai", re.IGNORECASE)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
LONGEST_FILE = 400


def named(path: Path) -> str:
    return str(path.relative_to(HOUSE))


def module_names() -> list[str]:
    parts = [path.relative_to(package.parent).with_suffix("").parts for package in PACKAGES for path in files(package)]
    return [".".join(part).removesuffix(".__init__") for part in parts if part[-1] != "__main__"]


def docstring_lines(source: str) -> set[int]:
    """The lines that docstrings take up: they may give examples."""
    lines: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())):
                lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


def test_the_core_names_no_service_outside_of_docstrings_and_comments() -> None:
    assert not [f"{named(path)}:{line}" for path in CORE_SOURCES for line in lines_that_name_a_service(path)]


def lines_that_name_a_service(path: Path) -> list[str]:
    source = path.read_text(encoding="utf-8")
    prose = docstring_lines(source)
    return [
        f"{token.start[0]}: {token.string}"
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type != tokenize.COMMENT and token.start[0] not in prose and SERVICE.search(token.string)
    ]


def test_the_environment_is_read_in_one_place() -> None:
    others = [path for path in SOURCES if path != CORE / "config.py"]
    found = [f"{named(path)}:{line}" for path in others for line in lines_that_read_the_environment(path)]
    assert not found, "take settings, or emp_core.config.environment()"


def lines_that_read_the_environment(path: Path) -> list[int]:
    """Where a variable is read; `{**os.environ}` for a child process is handing on, not reading."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    readers = {"environ", "environb", "getenv", "getenvb"}
    handed_on: set[ast.expr] = set()
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Dict(keys=keys, values=values):
                handed_on.update(value for key, value in zip(keys, values, strict=True) if key is None)
            case ast.Attribute(value=ast.Name(id="os"), attr=name) if name in readers and node not in handed_on:
                found.append(node.lineno)
            case ast.ImportFrom(module="os", names=names) if readers & {alias.name for alias in names}:
                found.append(node.lineno)
    return found


def test_nothing_is_left_unfinished() -> None:
    assert not [
        f"{named(path)}:{number}: {line.strip()}"
        for path in SOURCES
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if UNFINISHED.search(line)
    ]


def test_no_file_outgrows_one_thing() -> None:
    lengths = {named(path): len(path.read_text(encoding="utf-8").splitlines()) for path in [*SOURCES, *TESTS]}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_FILE}


@pytest.mark.parametrize("name", module_names())
def test_every_module_imports_and_has_what_it_says_it_has(name: str) -> None:
    module = importlib.import_module(name)
    said: list[str] = getattr(module, "__all__", [])
    assert not [entry for entry in said if not hasattr(module, entry)]
    assert len(set(said)) == len(said)
    if said and hasattr(module, "__path__"):
        assert set(said) == public_names(module), "a package's __all__ is exactly what it offers"


def public_names(package: ModuleType) -> set[str]:
    return {
        name
        for name, value in vars(package).items()
        if name == "__version__" or not (name.startswith("_") or isinstance(value, ModuleType))
    }


@pytest.mark.parametrize("path", PROJECTS, ids=named)
def test_every_dependency_is_pinned_by_the_lock(path: Path) -> None:
    pins = locked_versions()
    members = {canonicalize_name(tomllib.loads(p.read_text(encoding="utf-8"))["project"]["name"]) for p in PROJECTS}
    wanted = [r for r in requirements(path) if canonicalize_name(r.name) not in members]
    stale = [str(r) for r in wanted if not r.specifier.contains(pins.get(canonicalize_name(r.name), "0"))]
    assert not stale, "run .ci/lock"


def locked_versions() -> dict[str, str]:
    lock = (HOUSE / "requirements.lock").read_text(encoding="utf-8")
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", lock, re.MULTILINE)
    return {canonicalize_name(name): version for name, version in pins}


def requirements(path: Path) -> list[Requirement]:
    project = tomllib.loads(path.read_text(encoding="utf-8"))
    lists = [
        project["build-system"]["requires"],
        project["project"].get("dependencies", []),
        *project["project"].get("optional-dependencies", {}).values(),
        *project.get("dependency-groups", {}).values(),
    ]
    return [Requirement(text) for entries in lists for text in entries]


def test_the_lock_names_no_package_index() -> None:
    lock = (HOUSE / "requirements.lock").read_text(encoding="utf-8")
    assert "://" not in lock
    assert "index-url" not in lock

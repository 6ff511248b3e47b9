"""Checks what lies in the built wheels and source distributions: all of a package, and nothing beside it."""

import sys
import tarfile
import zipfile
from pathlib import Path

from emp_core.plugins.template import template_files

SHIPPED = {".py", ".lua", ".typed", ".json", ".png"}
BESIDE = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}


def main(folder: Path) -> int:
    """Compare every distribution in ``folder`` with the checkout; 1 if anything is missing or too much."""
    wrong = [problem for built in sorted(folder.iterdir()) for problem in problems(built)]
    for problem in wrong:
        sys.stderr.write(f"{problem}\n")
    return 1 if wrong else 0


def problems(built: Path) -> list[str]:
    """What is wrong with one wheel or source distribution."""
    package = built.name.split("-")[0]
    roots = [Path(), *Path("plugins").glob("*")]
    root = next(root for root in roots if (root / package).is_dir())
    expected = {str(path.relative_to(root)) for path in (root / package).rglob("*") if path.suffix in SHIPPED}
    if package == "emp_core":
        within = "emp_core/" if built.suffix == ".whl" else ""
        expected |= {f"{within}templates/plugin/{path}" for path, _ in template_files()}
    found = names_in(built)
    own = (f"{package}/", f"{package}-", "templates/")
    beside = {name for name in found if not name.startswith(own) and name not in BESIDE}
    return [
        *(f"{built.name}: {name} is missing" for name in sorted(expected - found)),
        *(f"{built.name}: {name} does not belong there" for name in sorted(beside)),
    ]


def names_in(built: Path) -> set[str]:
    """The files of a distribution, by their paths below the project's folder."""
    if built.suffix == ".whl":
        with zipfile.ZipFile(built) as wheel:
            return set(wheel.namelist())
    with tarfile.open(built) as sdist:
        return {name.partition("/")[2] for name in sdist.getnames()}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

"""Plugins that are really installed: a module and its metadata, in a folder on the path."""

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

InstallPlugin = Callable[..., None]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed distributions, on the path of this process."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    importlib.invalidate_caches()
    before = set(sys.modules)
    yield folder
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.fixture
def install(site: Path) -> InstallPlugin:
    """Installs a plugin: its module's source, and metadata with an entry point."""

    def install(name: str, source: str, *, distribution: str | None = None, version: str = "1.0") -> None:
        distribution = distribution or f"emp-{name}"
        module = f"{distribution.replace('-', '_')}_plugin"
        head = "from emp_core.plugins.hookspecs import Registration, hookimpl\n"
        (site / f"{module}.py").write_text(head + textwrap.dedent(source))
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[emp_core.plugins]\n{name} = {module}\n")
        importlib.invalidate_caches()

    return install

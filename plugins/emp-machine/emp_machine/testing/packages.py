"""Wheels of this machine, and environments that are made in no time, for tests of what pip installs."""

import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

__all__ = ["quick_python", "write_wheel"]


def write_wheel(folder: Path, name: str, version: str = "1.0", *, source: str = "", plugin: str | None = None) -> Path:
    """A wheel with one module, so that ``pip install --no-index --find-links folder name`` works; gives its path.

    Args:
        source: what is in the module.
        plugin: the name under which the module is a plugin.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(file, "w") as wheel:
        wheel.writestr(f"{name}.py", source)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: emp\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        if plugin is not None:
            wheel.writestr(f"{info}/entry_points.txt", f"[emp_core.plugins]\n{plugin} = {name}\n")
        wheel.writestr(f"{info}/RECORD", "")
    return file


def quick_python(folder: Path) -> str:
    """A Python whose ``-m venv`` copies an environment that was made once: making one takes seconds, and tests make many.

    Gives what to say for ``python`` in ``installer_config``.
    """
    base, script = folder / "venv", folder / "python"
    if not script.is_file():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(base)], check=True)  # noqa: S603 - this Python
        fresh = script.with_suffix(".part")
        fresh.write_text(
            f"""#!/bin/sh
if [ "$2" = venv ]; then rm -rf "$4" && mkdir -p "$(dirname "$4")" && exec cp -r {shlex.quote(str(base))} "$4"; fi
exec {shlex.quote(sys.executable)} "$@"
"""
        )
        fresh.chmod(0o700)
        fresh.replace(script)
    return str(script)

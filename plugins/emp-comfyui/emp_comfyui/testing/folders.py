"""The server's input, output and temp folders: numbering of saved files, and names that must not leave them."""

import json
import posixpath
import random
import re
import shutil
import string
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KINDS = ("output", "input", "temp")


class OutsideFolder(Exception):
    """A file name leads out of its folder."""


class Folders:
    """Three folders under one roof (``output`` may lie elsewhere)."""

    def __init__(self, root: Path, output: Path | None = None) -> None:
        """Make the folders under ``root``; ``temp`` is emptied, as a starting server does."""
        self._paths = {kind: root / kind for kind in KINDS}
        if output is not None:
            self._paths["output"] = output
        self.clear_temp()
        for path in self._paths.values():
            path.mkdir(parents=True, exist_ok=True)

    def path(self, kind: str) -> Path:
        """The folder of a kind; raises KeyError for an unknown one."""
        return self._paths[kind]

    def clear_temp(self) -> None:
        """Empty ``temp`` and forget the random parts of the names in it."""
        shutil.rmtree(self._paths["temp"], ignore_errors=True)
        self._paths["temp"].mkdir(parents=True, exist_ok=True)
        self._temp_tags: dict[str, str] = {}

    def temp_tag(self, owner: str) -> str:
        """The random part in the names of one node's temp files."""
        fresh = "".join(random.choices(string.ascii_lowercase, k=5))  # noqa: S311 - a name, not a secret
        return self._temp_tags.setdefault(owner, fresh)

    def next_file(self, kind: str, prefix: str, extension: str) -> tuple[Path, dict[str, str]]:
        """Path and reference of the next file ``{prefix}_{number:05}_.{extension}``.

        The number is one more than the highest in the folder, whatever its extension.

        Raises:
            OutsideFolder: ``prefix`` leads out of the folder.
        """
        base = self._paths[kind]
        prefix = _with_date(prefix)
        subfolder, name = posixpath.split(posixpath.normpath(prefix))
        folder = (base / subfolder).resolve()
        if not folder.is_relative_to(base.resolve()):
            common = Path(*_common(folder.parts, base.resolve().parts))
            raise OutsideFolder(
                "**** ERROR: Saving image outside the output folder is not allowed.\n"
                f" full_output_folder: {folder}\n         output_dir: {base}\n         commonpath: {common}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        pattern = re.compile(re.escape(name) + r"_(\d+)_?\.[^.]*")
        taken = [int(match[1]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))]
        file_name = f"{name}_{max(taken, default=0) + 1:05}_.{extension}"
        return folder / file_name, {"filename": file_name, "subfolder": subfolder, "type": kind}

    def annotated(self, name: object) -> Path | None:
        """The file that an input value such as ``job/up.png`` or ``up.png [temp]`` names.

        None if there is no such file, or the name leads out of its folder.
        """
        if not isinstance(name, str):
            return None
        kind = next((each for each in KINDS if name.endswith(f" [{each}]")), None)
        base = self._paths[kind or "input"].resolve()
        path = (base / (name.removesuffix(f" [{kind}]") if kind else name)).resolve()
        return path if path.is_relative_to(base) and path.is_file() else None

    def inside(self, kind: str, subfolder: str) -> Path | None:
        """The folder ``subfolder`` of a kind; None if it leads out."""
        base = self._paths[kind].resolve()
        folder = (base / subfolder).resolve()
        return folder if folder.is_relative_to(base) else None

    def png_texts(self, prompt: Mapping[str, Any], extra_data: Mapping[str, Any]) -> dict[str, str]:
        """Text chunks of a saved PNG: ``prompt`` and what ``extra_pnginfo`` holds."""
        texts = {"prompt": json.dumps(prompt)}
        extra = extra_data.get("extra_pnginfo")
        if isinstance(extra, Mapping):
            texts.update({str(key): json.dumps(value) for key, value in extra.items()})
        return texts


def _with_date(prefix: str) -> str:
    now = time.localtime()
    for name, value in (
        ("%year%", f"{now.tm_year}"),
        ("%month%", f"{now.tm_mon:02}"),
        ("%day%", f"{now.tm_mday:02}"),
        ("%hour%", f"{now.tm_hour:02}"),
        ("%minute%", f"{now.tm_min:02}"),
        ("%second%", f"{now.tm_sec:02}"),
    ):
        prefix = prefix.replace(name, value)
    return prefix


def _common(first: tuple[str, ...], second: tuple[str, ...]) -> list[str]:
    common = []
    for one, other in zip(first, second, strict=False):
        if one != other:
            break
        common.append(one)
    return common

"""What a store in a folder knows of its files besides their bytes: one small file for each, in a folder of its own."""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TextIO

from attrs import asdict, frozen

__all__ = ["FACTS_FOLDER", "Facts", "FactsFolder"]

FACTS_FOLDER = ".emp"
"""The folder within a store that is no place for files."""

_MAX_BYTES = 10_000


@frozen
class Facts:
    """What is known of a file that was put into the store."""

    key: str
    media_type: str
    size_bytes: int
    sha256: str
    retention: str | None


class FactsFolder:
    """The facts of all files of one store. What cannot be read is not known: the file counts as somebody else's."""

    def __init__(self, root: Path) -> None:
        self._folder = root / FACTS_FOLDER

    def write(self, facts: Facts) -> None:
        """Keep the facts of a file, in the place of those of an earlier one of its name."""
        path = self._path(facts.key)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with _created(part) as file:
                json.dump(asdict(facts), file)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def read(self, key: str) -> Facts | None:
        """The facts of a file; None: not known."""
        try:
            with self._path(key).open(encoding="utf-8") as file:
                told: Any = json.loads(file.read(_MAX_BYTES))
        except (OSError, ValueError):
            return None
        match told:
            case {"key": str(named), "media_type": str(), "size_bytes": int(), "sha256": str()} if named == key:
                return _facts(told)
        return None

    def remove(self, key: str) -> None:
        """Forget a file."""
        path = self._path(key)
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds the facts of other files
            path.parent.rmdir()

    def _path(self, key: str) -> Path:
        # Not by name: `a` and `a.json/b` would get in each other's way, and names can be as long as names may be.
        digest = hashlib.sha256(os.fsencode(key)).hexdigest()
        return self._folder / digest[:2] / f"{digest[2:]}.json"


def _created(path: Path) -> TextIO:
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # whoever forgets a file removes folders that are empty
            return path.open("x", encoding="utf-8")


def _facts(told: Mapping[str, Any]) -> Facts:
    retention = told.get("retention")
    return Facts(
        key=told["key"],
        media_type=told["media_type"],
        size_bytes=told["size_bytes"],
        sha256=told["sha256"],
        retention=retention if isinstance(retention, str) else None,
    )

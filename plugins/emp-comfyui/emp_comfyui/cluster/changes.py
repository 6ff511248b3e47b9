"""`Changes`: what was changed of a cluster's servers while it runs, in a file that everybody concerned reads.

A JSON array in the format of ``NUKE_COMFYUI_SERVERS``. An entry whose name is known changes what it says of that server; others
are servers that were added; ``"removed": true`` takes one out. Workers and host programs look at it every few seconds, so that
a change needs no connection to them, and reaches all that share the file.
"""

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from attrs import frozen

from emp_comfyui.cluster.reading import parse_json
from emp_core.errors import ConfigError

__all__ = ["Changes"]

_REMOVED = "removed"
_MOST_BYTES = 2**20

Entry = tuple[str, Any]


@frozen
class Changes:
    """The file of changes. It need not exist."""

    path: Path

    @property
    def exist(self) -> bool:
        """Whether anything was changed."""
        return self.path.is_file()

    @property
    def stamp(self) -> tuple[int, int, int] | None:
        """Differs when the file was written since; None while there is none."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def applied_to(self, entries: Sequence[Entry], problems: list[str]) -> list[Entry]:
        """Entries as they are with the changes. What is wrong with those goes into ``problems``."""
        changed = {_name_of(entry): (where, entry) for where, entry in entries}
        for where, entry in self._read(problems):
            if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
                problems.append(f"{where}: expected an object with a name")
                continue
            name = entry["name"]
            if entry.get(_REMOVED) is True:
                changed.pop(name, None)
            elif name in changed:
                changed[name] = (where, {**changed[name][1], **entry})
            elif "ip" in entry:
                changed[name] = (where, dict(entry))
            # Else it changed a server that is no longer there.
        return list(changed.values())

    def change(self, name: str, **what: Any) -> None:
        """Say something of a server: of one that is there, or all that is needed of a new one.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        with self._rewritten() as entries:
            entries[name] = {**entries.get(name, {}), "name": name, **what}
            entries[name].pop(_REMOVED, None)

    def remove(self, name: str, *, described: bool) -> None:
        """Take a server out.

        Args:
            described: whether it stands in the environment's description, too; otherwise nothing is left of it.

        Raises:
            ConfigError: the file cannot be read or written.
        """
        with self._rewritten() as entries:
            entries.pop(name, None)
            if described:
                entries[name] = {"name": name, _REMOVED: True}

    def reset(self) -> bool:
        """Undo all changes; whether there were any.

        Raises:
            ConfigError: the file cannot be removed.
        """
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unusable("removed", error) from error
        return True

    def _read(self, problems: list[str]) -> list[Entry]:
        try:
            with self.path.open("rb") as file:
                text = file.read(_MOST_BYTES + 1).decode("utf-8", "replace")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            problems.append(f"{self.path}: {error.strerror or error}")
            return []
        if len(text) > _MOST_BYTES:
            problems.append(f"{self.path}: longer than {_MOST_BYTES:,} bytes")
            return []
        return [
            (f"{self.path}[{number}]", entry) for number, entry in enumerate(parse_json(text, str(self.path), problems))
        ]

    @contextmanager
    def _rewritten(self) -> Iterator[dict[str, dict[str, Any]]]:
        """The entries by name, to be changed; written as a whole, one writer at a time."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.with_suffix(".lock").open("w") as lock:
                _wait_for(lock)
                problems: list[str] = []
                entries = {_name_of(entry): dict(entry) for _, entry in self._read(problems)}
                if problems:
                    raise ConfigError(
                        f"{self.path} cannot be changed", problems=tuple(problems), hint="mend or remove it"
                    )
                yield entries
                self._write(list(entries.values()))
        except OSError as error:
            raise self._unusable("written", error) from error

    def _write(self, entries: list[dict[str, Any]]) -> None:
        handle, draft = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(entries, file, indent=2)
                file.write("\n")
            Path(draft).chmod(0o644)  # others have to read it, and it holds no secrets
            Path(draft).replace(self.path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise

    def _unusable(self, what: str, error: OSError) -> ConfigError:
        return ConfigError(
            f"{self.path} cannot be {what}: {error.strerror or error}",
            hint="set EMP_COMFYUI_SERVERS_FILE to another file",
        )


def _wait_for(lock: IO[str]) -> None:
    """One writer at a time. Windows has no such lock: there the last writer's word counts, as a whole."""
    if sys.platform != "win32":
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX)


def _name_of(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return ""
    return str(entry.get("name") or f"{entry.get('ip')}:{entry.get('port', 8188)}")

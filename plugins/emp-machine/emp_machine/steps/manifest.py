"""Files to fetch, as a manifest lists them: where from, where to, and which they must be."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import field, frozen
from httpx import URL, InvalidURL

from emp_core.errors import ConfigError, UnsafeName
from emp_core.log.redaction import hide_secrets
from emp_core.storage.names import safe_key

__all__ = ["FileEntry", "read_manifest", "read_objects"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_KEYS = frozenset({"url", "path", "sha256", "size", "token_env"})
_MANIFEST_BYTES_MAX = 16 * 2**20


@frozen
class FileEntry:
    """A file to fetch.

    Attributes:
        path: where it belongs, below the service's folder.
        sha256: its checksum in hex; None: whatever comes is taken, and its checksum reported.
        size: in bytes; None: what the server says.
        token_env: the variable that holds a token for the server, sent as ``Authorization: Bearer`` to the URL's own host.
    """

    url: str = field(repr=hide_secrets)
    path: str
    sha256: str | None = None
    size: int | None = None
    token_env: str | None = None


def read_manifest(given: Any, where: str) -> tuple[FileEntry, ...]:
    """The files of a manifest: a list of ``{url, path, sha256, size, token_env}``, or the path of a JSON file with one.

    The list may stand under the key ``files`` or ``models`` of an object.

    Raises:
        ConfigError: it cannot be read, or entries cannot be used; lists all of them, each with its place.
    """
    try:
        objects = read_objects(given, where, ("files", "models"))
    except ValueError as error:
        raise ConfigError(str(error), hint="a manifest is a list of {url, path, sha256, size}") from error
    problems: list[str] = []
    entries = [_entry(one, f"{where}[{index}]", problems) for index, one in enumerate(objects)]
    paths = [entry.path for entry in entries if entry is not None]
    problems += [
        f"{where}: two files are to become {path!r}" for path in sorted({p for p in paths if paths.count(p) > 1})
    ]
    if problems:
        raise ConfigError(f"{where} has entries that cannot be used", problems=tuple(problems))
    return tuple(entry for entry in entries if entry is not None)


def read_objects(given: Any, where: str, keys: Sequence[str]) -> Sequence[Any]:
    """A list as it stands in a mapping: the list itself, the path of a JSON file with one, or an object with one under a
    key of ``keys``. Nothing is an empty list.

    Raises:
        ValueError: it is none of these; says what it is.
    """
    if isinstance(given, str) and given.strip():
        given = _read_file(Path(given.strip()).expanduser(), where)
    if isinstance(given, Mapping):
        given = next((given[key] for key in keys if key in given), given)
    if given is None or given == "":
        return ()
    if not isinstance(given, Sequence) or isinstance(given, str):
        raise ValueError(f"{where} is neither a list nor the path of a JSON file with one")  # noqa: TRY004 - a value
    return given


def _read_file(file: Path, where: str) -> Any:
    try:
        if file.stat().st_size > _MANIFEST_BYTES_MAX:
            raise ValueError(f"{where}: {file} is larger than {_MANIFEST_BYTES_MAX} bytes")
        return json.loads(file.read_bytes())
    except OSError as error:
        raise ValueError(f"{where}: {file} cannot be read: {error.strerror or error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: {file} is not JSON: {error}") from error


def _entry(one: Any, where: str, problems: list[str]) -> FileEntry | None:
    if not isinstance(one, Mapping):
        problems.append(f"{where}: expected an object with url and path")
        return None
    found = [f"{where}.{key}: no such key; known are {', '.join(sorted(_KEYS))}" for key in one if key not in _KEYS]
    url, path, sha256, size = one.get("url"), one.get("path"), one.get("sha256"), one.get("size")
    if not isinstance(url, str) or not _is_http(url):
        found.append(f"{where}.url: expected an http:// or https:// address")
    if not isinstance(path, str) or not path:
        found.append(f"{where}.path: expected a path below the service's folder")
    else:
        try:
            path = safe_key(path)
        except UnsafeName as error:
            found.append(f"{where}.path: {error.message}")
    if sha256 is not None and not (isinstance(sha256, str) and _SHA256.fullmatch(sha256.lower())):
        found.append(f"{where}.sha256: expected 64 hexadecimal digits")
    if size is not None and not (isinstance(size, int) and not isinstance(size, bool) and size >= 0):
        found.append(f"{where}.size: expected a number of bytes")
    token_env = one.get("token_env")
    if token_env is not None and not isinstance(token_env, str):
        found.append(f"{where}.token_env: expected the name of a variable")
    problems += found
    if found:
        return None
    return FileEntry(str(url), str(path), sha256.lower() if sha256 else None, size, token_env)


def _is_http(url: str) -> bool:
    try:
        parsed = URL(url)
    except InvalidURL:
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)

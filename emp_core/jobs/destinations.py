"""Where a job's outputs go: what its ``ctx`` may say, and what of it is shown."""

import re
from collections.abc import Mapping
from typing import Any

from emp_core.jobs.model import Destination
from emp_core.jobs.requirements import is_text

__all__ = [
    "STORAGE_FIELDS",
    "destination_problems",
    "is_retention_class",
    "path_problem",
    "shown_storage",
    "storage_problems",
]

STORAGE_FIELDS = ("bucket", "accountName", "accountKey", "endpoint", "cdnUrl")
"""What ``ctx.storage`` says of a store of the job's own; the first three are needed."""

_SHOWN = ("store", "bucket", "accountName", "endpoint", "cdnUrl")
_HIDDEN = "(hidden)"
_SEGMENT_MAX = 200
_PREFIX_MAX = 512
_STORAGE_MAX = 2048
_CLASS = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}", re.IGNORECASE | re.ASCII)
_CONTAINER = re.compile(r"\$?[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_ACCOUNT = re.compile(r"[a-z0-9]{3,24}", re.ASCII)
_URL = re.compile(r"https?://[^\s/?#@]+(/[^\s?#@]*)?")


def path_problem(name: str) -> str | None:
    """Why a text is no path below whatever folder it is put in; None: it is one."""
    if not name or not name.isprintable():
        return "is empty or holds control characters"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is absolute"
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return "tries to leave its folder"
    if any(len(segment.encode()) > _SEGMENT_MAX for segment in segments):
        return f"is longer than {_SEGMENT_MAX} bytes"
    if ":" in segments[0]:
        return "names a drive or a scheme"
    return None


def is_retention_class(name: str) -> bool:
    """Whether a text can be the name of a retention class: 1 to 32 letters, digits, ``-`` or ``_``."""
    return _CLASS.fullmatch(name) is not None


def destination_problems(ctx: Any) -> list[str]:
    """What is wrong with a job's ``ctx``, each with its path. No value of ``storage`` is repeated."""
    if not isinstance(ctx, Destination):
        return [f"ctx: expected a Destination, not {type(ctx).__name__}"]
    problems = [
        f"ctx.{name}: expected a text"
        for name in ("prefix", "filename", "retention")
        if (value := getattr(ctx, name)) is not None and not is_text(value)
    ]
    if problems:
        return problems + (storage_problems(ctx.storage) if ctx.storage is not None else [])
    if ctx.prefix and (problem := path_problem(ctx.prefix.strip("/"))):
        problems.append(f"ctx.prefix: {ctx.prefix[:100]!r} {problem}")
    if ctx.prefix and len(ctx.prefix.encode()) > _PREFIX_MAX:
        problems.append(f"ctx.prefix: is longer than {_PREFIX_MAX} bytes")
    if ctx.filename and (problem := "holds a folder" if "/" in ctx.filename else path_problem(ctx.filename)):
        problems.append(f"ctx.filename: {ctx.filename[:100]!r} {problem}")
    if ctx.retention is not None and not is_retention_class(ctx.retention):
        problems.append("ctx.retention: expected 1 to 32 letters, digits, '-' or '_'")
    return problems + (storage_problems(ctx.storage) if ctx.storage is not None else [])


def storage_problems(storage: Any) -> list[str]:
    """What is wrong with ``ctx.storage``; no value is repeated."""
    if not isinstance(storage, Mapping) or not all(is_text(text) for pair in storage.items() for text in pair):
        return ["ctx.storage: expected texts by name"]
    if too_long := [name for name, value in storage.items() if len(value) > _STORAGE_MAX]:
        return [f"ctx.storage.{name[:40]}: expected at most {_STORAGE_MAX:,} characters" for name in too_long]
    if "store" in storage:
        return [f"ctx.storage.{name[:40]}: a named store brings it along" for name in storage if name != "store"]
    problems = [
        f"ctx.storage.{name[:40]}: unknown; known are store, or {', '.join(STORAGE_FIELDS)}"
        for name in storage
        if name not in STORAGE_FIELDS
    ]
    problems += [f"ctx.storage.{name}: missing" for name in STORAGE_FIELDS[:3] if not storage.get(name)]
    for name, form, expected in (
        ("bucket", _CONTAINER, "the name of a container: small letters, digits, '-'"),
        ("accountName", _ACCOUNT, "the name of a storage account: 3 to 24 small letters and digits"),
        ("endpoint", _URL, "a URL without login and query, such as https://ACCOUNT.blob.core.windows.net"),
        ("cdnUrl", _URL, "a URL without login and query, such as https://cdn.example.com/art"),
    ):
        if storage.get(name) and not form.fullmatch(storage[name]):
            problems.append(f"ctx.storage.{name}: expected {expected}")
    return problems


def shown_storage(storage: Mapping[str, str]) -> dict[str, str]:
    """``ctx.storage`` without its secrets."""
    return {name: value if name in _SHOWN else _HIDDEN for name, value in storage.items()}

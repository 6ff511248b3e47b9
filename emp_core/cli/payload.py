"""The payload of `emp submit`: read from a file, from stdin or from the command line, and changed by ``-p``."""

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

from emp_core.errors import ConfigError, PayloadTooLarge
from emp_core.jobs.requirements import kind_of

__all__ = ["apply_fields", "read_payload"]

_READ_FACTOR = 4
"""A file may be larger than the payload that it holds: indented workflows shrink to a half when they are sent."""
_DOT = re.compile(r"(?<!\\)\.")


def read_payload(source: str | None, *, max_bytes: int) -> dict[str, Any]:
    """The payload that ``source`` gives: a file's path, ``-`` for stdin, a JSON object itself, or None for ``{}``.

    Raises:
        ConfigError: it cannot be read, is no JSON (tells line and column), or no object.
        PayloadTooLarge: it cannot fit into ``max_bytes``.
    """
    if source is None:
        return {}
    where, content = _content(source, max_bytes * _READ_FACTOR)
    if len(content) > max_bytes * _READ_FACTOR:
        raise PayloadTooLarge(
            f"the payload in {where} has more than {max_bytes * _READ_FACTOR:,} bytes, at most {max_bytes:,} are taken",
            hint="put files into an artifact store and refer to them, or raise EMP_MAX_PAYLOAD_BYTES",
        )
    payload = _parsed(content, where)
    if not isinstance(payload, dict):
        raise ConfigError(
            f"the payload in {where} is {kind_of(payload)}, and a JSON object is needed",
            hint='write it as {"key": ...}',
        )
    return payload


def _content(source: str, limit: int) -> tuple[str, bytes]:
    if source == "-":
        return "stdin", _read(sys.stdin.buffer, limit)
    if source.lstrip().startswith("{") and not Path(source[:4096]).exists():
        return "the command line", source.encode(errors="surrogateescape")
    try:
        with Path(source).open("rb") as file:
            return source, _read(file, limit)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(
            f"the payload file {source} cannot be read: {reason}",
            hint="give the path of a JSON file, - for stdin, or the JSON object itself in quotes",
        ) from error


def _read(file: BinaryIO, limit: int) -> bytes:
    # One more than is taken, so that what is too large is told apart without being read whole.
    return file.read(limit + 1)


def _parsed(content: bytes, where: str) -> Any:
    try:
        text = content.decode("utf-8-sig")
        value = json.loads(text, parse_constant=_refuse_constant)
        # What JSON can write as an escape, and no text in UTF-8 can hold.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        at = f"line {error.lineno}, column {error.colno}"
        reason = "it is empty" if not content.strip() else f"{at}: {error.msg}"
        raise ConfigError(
            f"the payload in {where} is not JSON: {reason}", details={"line": error.lineno, "column": error.colno}
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the payload in {where} is not JSON: byte {error.start} is not UTF-8") from error
    except UnicodeEncodeError as error:
        raise ConfigError(f"the payload in {where} holds half of a surrogate pair, which is no character") from error
    except (RecursionError, ValueError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise ConfigError(f"the payload in {where} cannot be used: {reason}") from error
    return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def apply_fields(
    payload: dict[str, Any], assignments: tuple[str, ...], files: Mapping[str, Any] = MappingProxyType({})
) -> None:
    r"""Set fields of the payload: ``key=value``, ``6.inputs.text=value``; ``\.`` is a dot within a name.

    A value that parses as JSON is what it says, any other is a text; ``@@`` begins one with an ``@``. Objects that are
    missing on the way are made.

    Args:
        files: what stands in the place of ``@FILE``, by the whole assignment.

    Raises:
        ConfigError: assignments that cannot be carried out; lists all of them.
    """
    problems = [problem for assignment in assignments if (problem := _assign(payload, assignment, files)) is not None]
    if problems:
        raise ConfigError("the payload's fields cannot be set", problems=tuple(problems))


def _assign(payload: dict[str, Any], assignment: str, files: Mapping[str, Any]) -> str | None:
    path, equals, text = assignment.partition("=")
    names = [name.replace("\\.", ".") for name in _DOT.split(path)]
    if not equals or not all(names):
        return f"-p {assignment}: expected NAME=VALUE, or NAME.NAME=VALUE"
    here: Any = payload
    for depth, name in enumerate(names):
        last = depth == len(names) - 1
        if isinstance(here, list):
            if not name.isdecimal() or int(name) >= len(here):
                return f"-p {assignment}: {'.'.join(names[:depth])} is a list of {len(here)} items, and {name!r} is none of them"
            key: Any = int(name)
        elif isinstance(here, dict):
            key = name
        else:
            return f"-p {assignment}: {'.'.join(names[:depth])} is {kind_of(here)}, so nothing can be set in it"
        if last:
            here[key] = files[assignment] if assignment in files else _value(text)
        else:
            here = here.setdefault(key, {}) if isinstance(here, dict) else here[key]
    return None


def _value(text: str) -> Any:
    if text.startswith("@@"):
        return text[1:]
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text

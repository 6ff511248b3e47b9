"""``${VAR}`` in the service mapping: read after the JSON is, in its texts only, so that a value can never change its shape.

``${VAR}`` is the variable's value, ``${VAR:-default}`` the default when it is not set or empty (a default may hold further
references), ``$$`` a dollar. Any other dollar stands for itself: ``p$5w`` stays as it is. Values are not read again.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["DEPTH_MAX", "JsonObject", "at", "expand", "interpolate"]

DEPTH_MAX = 32
"""Objects and lists within one another that a mapping may have, and references within one another in a text."""

_SPECIAL = re.compile(r"\$\$|\$\{|\}")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(:-|\})")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_$-]+")
_SHOWN_MAX = 60


class JsonObject(dict[str, Any]):
    """An object of a JSON text, with the keys that it gives more than once."""

    repeated: tuple[str, ...] = ()

    @classmethod
    def of(cls, pairs: list[tuple[str, Any]]) -> "JsonObject":
        """The object with these keys and values: a hook for `json.loads`."""
        made = cls(pairs)
        if len(made) < len(pairs):
            keys = [key for key, _ in pairs]
            made.repeated = tuple(key for key in made if keys.count(key) > 1)
        return made


def at(path: str, key: str | int) -> str:
    """The path of what stands at ``key`` of ``path``: ``ports[0]``, ``services.echo``, ``services["a.b"]``."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN_NAME.fullmatch(key):
        return f'{path}["{key[:_SHOWN_MAX]}"]'
    return f"{path}.{key}" if path else key


def interpolate(text: str, environ: Mapping[str, str]) -> str:
    """``text`` with its references replaced.

    Raises:
        ValueError: a variable is not set and has no default, or a reference cannot be read; the message says which.
    """
    expanded, _ = _read(text, 0, environ, depth=0, wanted=True)
    return expanded


def _read(text: str, start: int, environ: Mapping[str, str], *, depth: int, wanted: bool) -> tuple[str, int]:
    """Read from ``start`` to the end, or, within a default (``depth`` > 0), to the brace that ends it.

    ``wanted``: whether what is read will be used; a default that is not needed may name variables that are not set.
    """
    parts: list[str] = []
    while found := _SPECIAL.search(text, start):
        parts.append(text[start : found.start()])
        start = found.end()
        match found[0]:
            case "$$":
                parts.append("$")
            case "${":
                value, start = _reference(text, start, environ, depth=depth, wanted=wanted)
                parts.append(value)
            case _ if depth:
                return "".join(parts), start
            case brace:
                parts.append(brace)
    if depth:
        raise ValueError(f"{_shown(text)} lacks the '}}' that ends a reference")
    return "".join(parts) + text[start:], len(text)


def _reference(text: str, start: int, environ: Mapping[str, str], *, depth: int, wanted: bool) -> tuple[str, int]:
    found = _REFERENCE.match(text, start)
    if found is None or depth >= DEPTH_MAX:
        raise ValueError(
            f"{_shown(text[start - 2 :])} cannot be read; write ${{VAR}}, ${{VAR:-default}}, or $$ for a dollar"
        )
    name, value = found[1], environ.get(found[1])
    if found[2] == ":-":
        default, end = _read(text, found.end(), environ, depth=depth + 1, wanted=wanted and not value)
        return value or default, end
    if value is None and wanted:
        raise ValueError(f"the variable {name} is not set; set it, or give it a default: ${{{name}:-…}}")
    return value or "", found.end()


def expand(value: Any, environ: Mapping[str, str], path: str, problem: Callable[[str, str], None]) -> Any:
    """``value`` with the references of all its texts replaced; keys are left as they are.

    Args:
        path: where it stands.
        problem: told the path and the mistake of every text that cannot be replaced (which stays as it is), of every
            key that is given twice, and of what is nested too deep.
    """
    return _expand(value, environ, path, problem, 0)


def _expand(value: Any, environ: Mapping[str, str], path: str, problem: Callable[[str, str], None], depth: int) -> Any:
    if isinstance(value, str):
        try:
            return interpolate(value, environ)
        except ValueError as error:
            problem(path, str(error))
            return value
    if isinstance(value, (Mapping, Sequence)) and depth >= DEPTH_MAX:
        problem(path, f"more than {DEPTH_MAX} objects and lists within one another")
        return None
    if isinstance(value, Mapping):
        for key in getattr(value, "repeated", ()):
            problem(at(path, key), "is given twice")
        return {key: _expand(one, environ, at(path, str(key)), problem, depth + 1) for key, one in value.items()}
    if isinstance(value, Sequence):
        return [_expand(one, environ, at(path, i), problem, depth + 1) for i, one in enumerate(value)]
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}…")

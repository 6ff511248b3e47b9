"""Reading servers from JSON and from numbered variables. Every mistake is found, each with the place it stands at."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from emp_comfyui.cluster.server import ComfyUIServer
from emp_core.errors import ConfigError

__all__ = ["FIELDS", "numbered_entries", "parse_json", "read_servers"]

FIELDS: Mapping[str, type] = {
    "name": str,
    "ip": str,
    "port": int,
    "dir_local": str,
    "dir_remote": str,
    "priority": int,
    "enabled": bool,
    "tls": bool,
    "base_path": str,
    "slots": int,
}
_EXPECTED = {str: "a text", int: "a whole number", bool: "true or false"}
_BOUNDS = {"port": (1, 65535), "priority": (1, 1_000_000), "slots": (1, 1000)}
_NUMBERED = re.compile(r"NUKE_COMFYUI_(IP|PORT|DIR_LOCAL|DIR_REMOTE|NAME|PRIORITY|ENABLED)_([0-9]{1,4})")
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def parse_json(text: str, where: str, problems: list[str]) -> list[Any]:
    """A JSON array; anything else is a problem."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        problems.append(f"{where}: this is no JSON: {error}")
        return []
    if not isinstance(value, list):
        problems.append(f"{where}: expected a JSON array of servers")
        return []
    return value


def numbered_entries(environ: Mapping[str, str], problems: list[str]) -> list[tuple[str, Any]]:
    """The servers of ``NUKE_COMFYUI_IP_1`` and so on, as entries, each with its place. Gaps are no mistake."""
    found: dict[int, dict[str, Any]] = {}
    for variable, raw in environ.items():
        match = _NUMBERED.fullmatch(variable)
        if match is not None and raw.strip():
            key = match[1].lower()
            value = _from_text(key, raw.strip())
            if value is None:
                problems.append(f"{variable}: expected {_EXPECTED[FIELDS[key]]}, not {raw.strip()!r}")
            found.setdefault(int(match[2]), {})[key] = value
    entries: list[tuple[str, Any]] = []
    for number, entry in sorted(found.items()):
        if "ip" not in entry:
            given = ", ".join(sorted(f"NUKE_COMFYUI_{key.upper()}_{number}" for key in entry))
            problems.append(f"NUKE_COMFYUI_IP_{number}: missing, though there is {given}")
            continue
        known = {key: value for key, value in entry.items() if value is not None}
        entries.append((f"NUKE_COMFYUI_*_{number}", {"name": f"server{number}", **known}))
    return entries


def read_servers(entries: Sequence[tuple[str, Any]], problems: list[str]) -> list[ComfyUIServer]:
    """Servers of entries as in the JSON. What is wrong goes into ``problems``, and that server is left out."""
    servers: list[ComfyUIServer] = []
    for where, entry in entries:
        wrong = _problems_of(entry, where)
        problems += wrong
        if wrong:
            continue
        try:
            servers.append(ComfyUIServer(**{"name": _name_of(entry), **entry}))
        except ConfigError as error:
            problems.append(f"{where}: {error}")
    _find_doubles(servers, problems)
    return servers


def _problems_of(entry: Any, where: str) -> list[str]:
    if not isinstance(entry, Mapping):
        return [f"{where}: expected an object, not {_kind(entry)}"]
    problems = [f"{where}.{key}: unknown; known are {', '.join(FIELDS)}" for key in entry if key not in FIELDS]
    if "ip" not in entry:
        problems.append(f"{where}.ip: missing")
    problems += [
        f"{where}.{key}: {wrong}" for key, value in entry.items() if key in FIELDS and (wrong := _wrong(key, value))
    ]
    return problems


def _wrong(key: str, value: Any) -> str | None:
    kind = FIELDS[key]
    fits: bool = isinstance(value, kind)
    if not fits or (kind is int and isinstance(value, bool)):
        return f"expected {_EXPECTED[kind]}, not {_kind(value)}"
    if key in _BOUNDS and not _BOUNDS[key][0] <= value <= _BOUNDS[key][1]:
        return f"expected {_BOUNDS[key][0]} to {_BOUNDS[key][1]}, not {value}"
    if key in ("name", "ip") and not value.strip():
        return "is empty"
    if key == "ip" and not re.fullmatch(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?", value):
        return f"expected an IP address or a host name, not {value!r}"
    return None


def _name_of(entry: Mapping[str, Any]) -> str:
    return f"{entry['ip']}:{entry.get('port', 8188)}"


def _find_doubles(servers: Sequence[ComfyUIServer], problems: list[str]) -> None:
    names, addresses = Counter(one.name for one in servers), Counter(one.url for one in servers)
    problems += [f"{count} servers have the name {name!r}" for name, count in names.items() if count > 1]
    problems += [f"{count} servers have the address {url}" for url, count in addresses.items() if count > 1]


def _from_text(key: str, raw: str) -> Any:
    kind = FIELDS[key]
    if kind is bool:
        return _WORDS.get(raw.lower())
    if kind is int:
        return int(raw) if re.fullmatch(r"[0-9]{1,9}", raw) else None
    return raw


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return repr(value)
        case list():
            return "a list"
    return "an object"

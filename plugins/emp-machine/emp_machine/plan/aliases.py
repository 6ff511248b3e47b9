"""Variables of older set-ups, taken for those that mean the same today."""

from collections.abc import Mapping

from attrs import frozen

__all__ = ["ALIASES", "with_aliases"]


@frozen
class Alias:
    """A variable that is taken for another one.

    Attributes:
        old: the variables, the first of which has to be set.
        new: what they are taken for.
        note: what to know about it; empty when the two mean just the same.
    """

    old: tuple[str, ...]
    new: str
    note: str = ""


ALIASES = (
    Alias(
        ("REDIS_API_HOST", "REDIS_API_PORT"),
        "HUB_REDIS_URL",
        "workers speak to Redis itself, and to no API in front of it: set HUB_REDIS_URL if Redis is elsewhere",
    ),
    Alias(
        ("EXECUTION_SERVICE_PORT",), "COMFYUI_BASE_PORT", "ports are counted from GPU 0, and this one is that of GPU_ID"
    ),
    Alias(("COMFY_REPO_URL",), "COMFYUI_REPO_URL"),
)


def with_aliases(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment with older variables taken for today's, and a sentence about each that is set.

    What is set under today's name goes first. Doing it twice changes nothing.
    """
    known = {name: value.strip() for name, value in environ.items() if value.strip()}
    found = dict(environ)
    notes: list[str] = []
    for alias in ALIASES:
        if alias.old[0] not in known:
            continue
        named = " and ".join(name for name in alias.old if name in known)
        value = _value(alias, known)
        if known.get(alias.new, value) != value:
            notes.append(f"{named} has no effect: {alias.new} is set")
            continue
        found[alias.new] = value
        about = f": {alias.note}" if alias.note else ""
        notes.append(f"{named} is taken for {alias.new}={value}{about}")
    return found, tuple(notes)


def _value(alias: Alias, known: Mapping[str, str]) -> str:
    match alias.new:
        case "HUB_REDIS_URL":
            return _base_port(known)
    return known[alias.old[0]]


def _base_port(known: Mapping[str, str]) -> str:
    """The port of GPU 0, of the one of GPU ``GPU_ID``: there is one instance on each."""
    port, gpu = known["EXECUTION_SERVICE_PORT"], known.get("GPU_ID", "0")
    if not (port.isdecimal() and gpu.isdecimal()):
        return port  # told as it is, so that the mapping refuses it
    return str(int(port) - int(gpu))

"""Variables of older set-ups, taken for those that mean the same today."""

from collections.abc import Callable, Mapping

from attrs import frozen

from emp_core.log.redaction import hide_secrets

__all__ = ["with_aliases"]


@frozen
class _Alias:
    """Variables that are taken for another one.

    Attributes:
        old: the first of them has to be set.
        new: what they are taken for.
        value: what it is then, from the variables that are set.
        note: what to know about it.
    """

    old: tuple[str, ...]
    new: str
    value: Callable[[Mapping[str, str]], str]
    note: str = ""


def _redis_url(known: Mapping[str, str]) -> str:
    return f"redis://{known['REDIS_API_HOST']}:{known.get('REDIS_API_PORT', '6379')}"


def _base_port(known: Mapping[str, str]) -> str:
    """The port of GPU 0, from the one of GPU ``GPU_ID``: there was one instance on each."""
    port, gpu = known["EXECUTION_SERVICE_PORT"], known.get("GPU_ID", "0")
    if not (port.isdecimal() and gpu.isdecimal()):
        return port  # told as it is, so that whoever reads it says what is wrong with it
    return str(int(port) - int(gpu))


_ALIASES = (
    _Alias(
        ("REDIS_API_HOST", "REDIS_API_PORT"),
        "HUB_REDIS_URL",
        _redis_url,
        "workers speak to Redis itself, and to no API in front of it: set HUB_REDIS_URL if Redis is elsewhere",
    ),
    _Alias(
        ("EXECUTION_SERVICE_PORT",),
        "COMFYUI_BASE_PORT",
        _base_port,
        "ports are counted from GPU 0, and this one is that of GPU_ID",
    ),
    _Alias(("COMFY_REPO_URL",), "COMFYUI_REPO_URL", lambda known: known["COMFY_REPO_URL"]),
)


def with_aliases(environ: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """The environment with older variables taken for today's, and a sentence about each that is set.

    What is set under today's name goes first. Doing it twice changes nothing.
    """
    known = {name: value.strip() for name, value in environ.items() if value.strip()}
    found = dict(environ)
    notes: list[str] = []
    for alias in _ALIASES:
        if alias.old[0] not in known:
            continue
        names = [name for name in alias.old if name in known]
        named, several = " and ".join(names), len(names) > 1
        value = alias.value(known)
        if known.get(alias.new, value) != value:
            notes.append(f"{named} {'have' if several else 'has'} no effect: {alias.new} is set")
            continue
        found[alias.new] = value
        about = f": {alias.note}" if alias.note else ""
        notes.append(f"{named} {'are' if several else 'is'} taken for {alias.new}={hide_secrets(value)}{about}")
    return found, tuple(notes)

"""Changes of the servers, written into the file that workers and host programs follow."""

from pathlib import Path
from typing import Any

from attrs import NOTHING, fields

from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.server import ComfyUIServer
from emp_core.cli.hub import prepared
from emp_core.cli.output import note
from emp_core.config import environment
from emp_core.errors import ConfigError

__all__ = ["added", "changed", "entry_of", "removed", "undone"]

_DEFAULTS = {field.name: field.default for field in fields(ComfyUIServer) if field.default is not NOTHING}


def entry_of(address: str, *, disabled: bool, **about: Any) -> dict[str, Any]:
    """What was said on the command line of a server, as an entry of ``NUKE_COMFYUI_SERVERS``.

    Raises:
        ConfigError: the address has a port that is none.
    """
    ip, port = _split(address)
    entry: dict[str, Any] = {"ip": ip, **{key: value for key, value in about.items() if value}}
    if port is not None:
        entry["port"] = port
    return {**entry, "enabled": False} if disabled else entry


def added(name: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Add a server; gives what is known of it now.

    Raises:
        ConfigError: there is one of this name or address, or the entry is wrong.
    """
    configuration = _configuration()
    if any(server.name == name for server in configuration.servers()):
        raise ConfigError(f"there is a server {name!r} already", hint="choose another name, or remove it first")
    # Nothing holds of what was said before of a server of this name that was removed.
    return _written(configuration, name, {**_DEFAULTS, **entry})


def changed(name: str, **what: Any) -> dict[str, Any]:
    """Change what is said of a server; gives what is known of it now.

    Raises:
        ConfigError: there is none of this name, or it cannot be so.
    """
    configuration = _configuration()
    _known(configuration, name)
    return _written(configuration, name, what)


def removed(name: str) -> dict[str, Any]:
    """Take a server out; gives what was known of it.

    Raises:
        ConfigError: there is none of this name.
    """
    configuration = _configuration()
    server = _known(configuration, name)
    configuration.changes.remove(name, described=configuration.describes(name))
    _tell_of_one(configuration)
    return {**server, "changes": str(configuration.changes.path)}


def undone() -> tuple[Path, bool]:
    """Undo all changes; the file of changes, and whether there was one.

    Raises:
        ConfigError: it cannot be removed.
    """
    prepared()
    changes = ClusterConfiguration.changes_of(environment())
    return changes.path, changes.reset()


def _configuration() -> ClusterConfiguration:
    prepared()
    return ClusterConfiguration.from_env(environment())


def _known(configuration: ClusterConfiguration, name: str) -> dict[str, Any]:
    servers = {server.name: server for server in configuration.servers()}
    if name not in servers:
        raise ConfigError(f"there is no server {name!r}", hint=f"there are: {', '.join(servers) or 'none'}")
    return servers[name].as_dict()


def _written(configuration: ClusterConfiguration, name: str, what: dict[str, Any]) -> dict[str, Any]:
    configuration.check(name, what)
    _tell_of_one(configuration)
    configuration.changes.change(name, **what)
    return {**_known(configuration, name), "changes": str(configuration.changes.path)}


def _tell_of_one(configuration: ClusterConfiguration) -> None:
    if configuration.source == "COMFYUI_HOST" and not configuration.changes.exist:
        note("Workers that run already know one server only: start them again, once, to have them follow changes.")


def _split(address: str) -> tuple[str, int | None]:
    """An address with a port, or without; IPv6 needs brackets to have one."""
    ip, colon, port = address.rpartition(":")
    if not colon or (":" in ip and not ip.endswith("]")):
        return address, None
    if not port.isdecimal():
        raise ConfigError(f"{address}: {port!r} is no port", hint="such as 192.168.1.189:8188")
    return ip, int(port)

"""Which servers a cluster has: what the environment says, and what was changed since by ``emp comfyui servers``."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from emp_comfyui.cluster.changes import Changes
from emp_comfyui.cluster.reading import numbered_entries, parse_json, read_servers
from emp_comfyui.cluster.server import ComfyUIServer
from emp_comfyui.cluster.settings import ClusterSettings
from emp_comfyui.settings import ComfyUISettings
from emp_core.config import Settings, load_settings
from emp_core.errors import ConfigError

__all__ = ["ClusterConfiguration"]

_VARIABLE = "NUKE_COMFYUI_SERVERS"
_HINT = f"""{_VARIABLE}='[{{"name": "server1", "ip": "192.168.1.187", "port": 8188}}]'"""

Entry = tuple[str, Any]


@frozen
class ClusterConfiguration:
    """Where the servers are described.

    Attributes:
        source: what the first description is: ``NUKE_COMFYUI_SERVERS``, ``NUKE_COMFYUI_IP_1`` and so on,
            ``NUKE_COMFYUI_IP``, or ``COMFYUI_HOST`` when there is no other.
        changes: the file of changes.
    """

    settings: ClusterSettings
    source: str
    changes: Changes
    _entries: tuple[Entry, ...]

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "ClusterConfiguration":
        """Find the description.

        Raises:
            ConfigError: it cannot be used; lists every mistake with its place.
        """
        settings = load_settings(ClusterSettings, environ)
        problems: list[str] = []
        source, entries = _first_description(settings, environ, problems)
        read_servers(entries, problems)
        if problems:
            raise ConfigError(f"{source} describes servers that cannot be used", problems=tuple(problems), hint=_HINT)
        configuration = cls(settings, source, cls.changes_of(environ), tuple(entries))
        # Changes may leave none for a while: what is there goes on, and waits for one.
        if not configuration.changes.exist and not any(server.enabled for server in configuration.servers()):
            raise ConfigError(
                f"none of the servers of {source} is enabled", hint='set "enabled": true for at least one of them'
            )
        return configuration

    @classmethod
    def changes_of(cls, environ: Mapping[str, str]) -> Changes:
        """The file of changes alone, for those who cannot use the rest."""
        return Changes(_file(load_settings(ClusterSettings, environ), environ))

    @classmethod
    def describes_several(cls, environ: Mapping[str, str]) -> bool:
        """Whether there is any word of a cluster, beyond the one server of ``COMFYUI_HOST``."""
        source, _ = _first_description(load_settings(ClusterSettings, environ), environ, [])
        return source != "COMFYUI_HOST" or cls.changes_of(environ).exist

    def servers(self) -> tuple[ComfyUIServer, ...]:
        """The servers as they are now, changes included.

        Raises:
            ConfigError: the changes cannot be used; lists every mistake with its place.
        """
        problems: list[str] = []
        servers = read_servers(self.changes.applied_to(self._entries, problems), problems)
        if problems:
            raise ConfigError(
                f"{self.changes.path} has changes that cannot be used",
                problems=tuple(problems),
                hint="mend it, or undo all changes: emp comfyui servers reset",
            )
        return tuple(servers)

    def describes(self, name: str) -> bool:
        """Whether the environment describes a server of this name, whatever the changes say."""
        return any(server.name == name for server in read_servers(self._entries, []))

    def check(self, name: str, what: Mapping[str, Any]) -> None:
        """See whether a server can be changed, or added, like this.

        Raises:
            ConfigError: it cannot; lists every mistake.
        """
        entries = {server.name: server.as_dict() for server in self.servers()}
        entries[name] = {**entries.get(name, {}), "name": name, **what}
        problems: list[str] = []
        read_servers(list(entries.items()), problems)
        if problems:
            raise ConfigError(f"server {name!r} cannot be like this", problems=tuple(problems))


def _first_description(
    settings: ClusterSettings, environ: Mapping[str, str], problems: list[str]
) -> tuple[str, Sequence[Entry]]:
    """The first that is there: the JSON, the numbered variables, the plain ones, the server of a worker without a cluster."""
    if settings.servers is not None:
        found = parse_json(settings.servers, _VARIABLE, problems)
        if not found and not problems:
            problems.append(f"{_VARIABLE}: the array is empty")
        return _VARIABLE, [(f"{_VARIABLE}[{number}]", entry) for number, entry in enumerate(found)]
    numbered = numbered_entries(environ, problems)
    if numbered or problems:
        return "NUKE_COMFYUI_IP_1 and so on", numbered
    if settings.ip is not None:
        plain = {
            "name": "comfyui",
            "ip": settings.ip,
            "port": settings.port,
            "dir_local": settings.dir_local,
            "dir_remote": settings.dir_remote,
        }
        return "NUKE_COMFYUI_IP", [("NUKE_COMFYUI_IP", plain)]
    single = load_settings(ComfyUISettings, environ)
    of_worker = {
        "name": "comfyui",
        "ip": single.host,
        "port": single.port,
        "tls": single.tls,
        "base_path": single.base_path,
        "dir_local": settings.dir_local,
        "dir_remote": settings.dir_remote,
    }
    return "COMFYUI_HOST", [("COMFYUI_HOST", of_worker)]


def _file(settings: ClusterSettings, environ: Mapping[str, str]) -> Path:
    if settings.servers_file is not None:
        return Path(settings.servers_file).expanduser()
    return Settings.from_env(environ).data_dir / "comfyui-servers.json"

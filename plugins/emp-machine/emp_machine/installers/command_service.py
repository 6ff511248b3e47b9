"""Any program as a service: what installs it and what starts it stand in the service mapping."""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen

from emp_core.connectors.base import ServiceConfig
from emp_core.services.installer import Installer, Step
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance
from emp_machine.installers.options import Options
from emp_machine.probe import answers, require_done
from emp_machine.steps import Command, Downloads, GitCheckout, PipInstall, VirtualEnv, read_manifest

__all__ = ["CommandServiceInstaller"]

_PLACE = re.compile(r"\{(\w+)\}")


class CommandServiceInstaller(Installer):
    """Installs and starts what ``installer_config`` says:

    - ``repo_url`` and ``branch``: a repository for the folder ``repo`` of the service's folder.
    - ``requirements``: requirements of pip, for a virtual environment of its own in ``venv``.
    - ``files``: a manifest of files to fetch into the folder.
    - ``install``: commands to run once, and again for another repository, branch or virtual environment, each a list of words,
      or ``{run, makes}``: the words, and the files or folders below the service's folder without which it has to be run again.
    - ``command``: what starts an instance, a list of words.
    - ``environ``: its variables.
    - ``worker_environ``: variables that lead a worker to its instance, such as ``NOTES_PORT``.
    - ``health``: the path that answers when it works, such as ``/health``; without one, that its port takes connections.
    - ``start_s``, ``stop_s``: how long it may take to start and to end.

    In ``install``, ``command`` and ``environ`` these stand for what the plan gives: ``{python}`` (the environment's, else
    the one that runs this), ``{folder}``, ``{repo}``, and of an instance ``{host}``, ``{port}``, ``{port2}``, ``{gpu}``,
    ``{number}``, ``{state}`` (a folder of its own), ``{name}``.
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        super().__init__(config, folder)
        options = Options(config)
        self._repo_url = options.text("repo_url")
        self._branch = options.text("branch", "main")
        self._requirements = options.words("requirements")
        self._files = options.value("files")
        install = options.objects("install")
        self._command = options.words("command")
        self._environ = options.variables("environ")
        self._worker_environ = options.variables("worker_environ")
        self._health = options.text("health")
        self._start_s = options.number("start_s", 120.0)
        self._stop_s = options.number("stop_s", 10.0)
        if not self._command:
            options.wrong("command", "expected a list of words: the program that is the service, and its arguments")
        self._install = [_Install.read(one, index, options) for index, one in enumerate(install)]
        if self._health and not self._health.startswith("/"):
            options.wrong("health", "expected a path that begins with /")
        for word in (*self._command, *self._environ.values(), *self._worker_environ.values()):
            for name in _PLACE.findall(word):
                if name not in _KNOWN:
                    options.wrong("command", f"{{{name}}} is not known; known are {', '.join(sorted(_KNOWN))}")
        self._options = options

    def steps(self) -> Sequence[Step]:
        """The repository, the environment, the files, the commands, as far as they are asked for."""
        self._options.check()
        steps: list[Step] = []
        venv_folder: Path | None = None
        if self._repo_url:
            steps.append(GitCheckout("get the repository", self._repo_url, self.folder / "repo", self._branch))
        if self._requirements:
            venv = VirtualEnv("make a virtual environment", self.folder / "venv", sys.executable)
            venv_folder = venv.folder
            steps += [venv, PipInstall("install its requirements", venv, packages=self._requirements)]
        if entries := read_manifest(self._files, f"services.{self.config.name}.installer_config.files"):
            steps.append(Downloads("fetch its files", self.folder, entries, environ=self.config.environ))
        for index, one in enumerate(self._install, 1):
            argv = _filled(one.run, self._places())
            of = (self._repo_url, self._branch)
            steps.append(
                Command(f"run command {index}", self.folder, argv, makes=one.makes, of=of, remembered_in=venv_folder)
            )
        return steps or [Command("make its folder", self.folder, ["true"])]

    async def verify(self) -> None:
        """Start it for a moment, and ask whether it answers."""
        await require_done(self.steps(), self.config.name)
        named = {name for word in self._command for name in _PLACE.findall(word)}
        ports = max(int(name.removeprefix("port") or 1) for name in {"port", *(named & {"port2", "port3"})})
        await answers(self.launch, self.config.name, self.folder, self.config.environ, ports)

    def launch(self, instance: ServiceInstance) -> Launch:
        """The command, with the instance's port and folders in it."""
        self._options.check()
        places = {**self._places(), **_of(instance)}
        health = None
        if instance.port is not None:
            url = f"http://{instance.reached_at}:{instance.port}{self._health}" if self._health else None
            health = HealthCheck(url, instance.port, start_s=self._start_s)
        return Launch(
            argv=tuple(_filled(self._command, places)),
            cwd=self.folder / "repo" if self._repo_url else self.folder,
            environ={name: _filled([value], places)[0] for name, value in self._environ.items()},
            health=health,
            worker_environ={name: _filled([value], places)[0] for name, value in self._worker_environ.items()},
            stop_s=self._stop_s,
        )

    def _places(self) -> dict[str, str]:
        python = str(self.folder / "venv" / "bin" / "python") if self._requirements else sys.executable
        return {"python": python, "folder": str(self.folder), "repo": str(self.folder / "repo")}


@frozen
class _Install:
    """A command that is run once.

    Attributes:
        makes: paths below the service's folder.
    """

    run: tuple[str, ...]
    makes: tuple[str, ...] = ()

    @classmethod
    def read(cls, given: Any, index: int, options: Options) -> "_Install":
        """As it stands in the mapping."""
        one = given if isinstance(given, Mapping) else {"run": given}
        run, makes = one.get("run"), one.get("makes", [])
        if not _are_words(run) or not run:
            options.wrong(f"install[{index}]", "expected a list of words, or an object with the list `run`")
            return cls(())
        if not _are_words(makes) or one.keys() - {"run", "makes"}:
            options.wrong(f"install[{index}]", "expected `run` and `makes`, each a list of texts, and nothing else")
            return cls(tuple(run))
        return cls(tuple(run), tuple(makes))


def _are_words(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(word, str) for word in given)


_KNOWN = frozenset({"python", "folder", "repo", "host", "port", "port2", "port3", "gpu", "number", "state", "name"})


def _of(instance: ServiceInstance) -> dict[str, str]:
    return {
        "host": instance.host,
        **{f"port{number if number > 1 else ''}": str(port) for number, port in enumerate(instance.ports, 1)},
        "gpu": "" if instance.gpu is None else str(instance.gpu),
        "number": str(instance.number),
        "state": str(instance.state),
        "name": instance.name,
    }


def _filled(words: Sequence[str], places: Mapping[str, str]) -> list[str]:
    """The words with their places filled; what is not known stays as it is."""
    return [_PLACE.sub(lambda found: places.get(found[1], found[0]), word) for word in words]

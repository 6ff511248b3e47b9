"""ComfyUI on a machine of ours: the program, its custom nodes and its models.

Its steps come from emp-machine (``pip install "emp-comfyui[machine]"``), which runs it.
"""

import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import frozen
from emp_machine.installers.options import Options
from emp_machine.probe import answers, require_done
from emp_machine.steps import Command, Downloads, GitCheckout, PipInstall, VirtualEnv, read_manifest, read_objects

from emp_core.connectors.base import ServiceConfig
from emp_core.services.installer import Installer, Step
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance

__all__ = ["ComfyUIManagementClient", "CustomNode"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_KEYS = frozenset({"url", "name", "ref", "commit", "branch", "script"})


@frozen
class CustomNode:
    """A repository of custom nodes.

    Attributes:
        name: its folder below ``custom_nodes``.
        ref: a branch, a tag or a whole commit; a commit is what keeps a fleet the same.
        script: a Python script of it that is run once after its requirements are there, such as ``install.py``.
    """

    url: str
    name: str
    ref: str
    script: str = ""


class ComfyUIManagementClient(Installer):
    """ComfyUI. ``installer_config``:

    - ``repo_url``, ``branch``: the repository, and a branch, tag or whole commit of it.
    - ``python``: the Python that its virtual environment is made from.
    - ``pip_options``: more options of ``pip install``, such as ``--extra-index-url`` for a build of torch.
    - ``custom_nodes_enabled``, ``custom_nodes``: a list of ``{url, name, ref, script}``, or the path of a JSON file with
      one.
    - ``start_s``: how long it may take to answer for the first time.
    - ``models``: a manifest of ``{url, path, sha256, size, token_env}``, paths below ``models``; or the path of a JSON file
      with one.
    - ``downloads_at_once``: how many models are fetched side by side.
    - ``args``: more arguments of ``main.py``.
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        super().__init__(config, folder)
        options = Options(config)
        self._repo_url = options.text("repo_url", "https://github.com/comfyanonymous/ComfyUI.git")
        self._branch = options.text("branch", "master")
        self._python = options.text("python", sys.executable)
        self._pip_options = tuple(shlex.split(options.text("pip_options")))
        enabled = options.flag("custom_nodes_enabled", default=True)
        nodes = options.value("custom_nodes")
        self._nodes = _custom_nodes(nodes, options) if enabled else ()
        self._models = options.value("models")
        self._at_once = max(1, int(options.number("downloads_at_once", 4)))
        self._args = tuple(shlex.split(options.text("args")))
        self._start_s = options.number("start_s", 300.0)
        self._options = options

    @property
    def _repo(self) -> Path:
        return self.folder / "ComfyUI"

    @property
    def _venv(self) -> VirtualEnv:
        return VirtualEnv("make its virtual environment", self.folder / "venv", self._python)

    def steps(self) -> Sequence[Step]:
        """The program, its environment, each custom node, the models."""
        self._options.check()
        venv = self._venv
        steps: list[Step] = [
            GitCheckout("get ComfyUI", self._repo_url, self._repo, self._branch),
            venv,
            self._pip("install its requirements", venv, self._repo / "requirements.txt"),
        ]
        for node in self._nodes:
            folder = self._repo / "custom_nodes" / node.name
            steps.append(GitCheckout(f"get the custom nodes {node.name}", node.url, folder, node.ref))
            steps.append(self._pip(f"install what {node.name} needs", venv, folder / "requirements.txt"))
            if node.script:
                argv = (str(venv.python), node.script)
                of = (node.url, node.ref)
                name = f"run {node.script} of {node.name}"
                steps.append(Command(name, self.folder, argv, cwd=folder, of=of, remembered_in=venv.folder))
        if entries := read_manifest(self._models, self._where("models")):
            environ, at_once = self.config.environ, self._at_once
            steps.append(
                Downloads("fetch its models", self._repo / "models", entries, environ=environ, at_once=at_once)
            )
        return steps

    async def verify(self) -> None:
        """Start it for a moment on a free port, and ask whether it answers.

        Raises:
            InstallError: something is missing, or it does not answer.
        """
        await require_done(self.steps(), "ComfyUI")
        await answers(self.launch, self.config.name, self.folder, self.config.environ)

    def launch(self, instance: ServiceInstance) -> Launch:
        """``main.py`` with folders of the instance's own: ComfyUI empties its temporary folder when it starts, and holds a
        database in its user folder, so two that run side by side must not share them.
        """
        self._options.check()
        port = instance.port or 8188
        state = instance.state
        host = instance.reached_at
        return Launch(
            argv=(
                str(self._venv.python),
                *("main.py", "--listen", instance.host, "--port", str(port), "--disable-auto-launch"),
                *("--output-directory", str(state / "output"), "--input-directory", str(state / "input")),
                *("--temp-directory", str(state / "temp"), "--user-directory", str(state / "user")),
                *self._args,
            ),
            cwd=self._repo,
            health=HealthCheck(f"http://{host}:{port}/system_stats", port, start_s=self._start_s),
            worker_environ={"COMFYUI_HOST": host, "COMFYUI_PORT": str(port)},
            stop_s=15.0,
        )

    def _pip(self, name: str, venv: VirtualEnv, requirements: Path) -> PipInstall:
        return PipInstall(name, venv, requirements=requirements, options=self._pip_options)

    def _where(self, key: str) -> str:
        return f"services.{self.config.name}.installer_config.{key}"


def _custom_nodes(given: Any, options: Options) -> tuple[CustomNode, ...]:
    nodes: list[CustomNode] = []
    try:
        objects = read_objects(given, "custom_nodes", ("custom_nodes", "nodes"))
    except ValueError as error:
        options.wrong("custom_nodes", str(error))
        return ()
    for index, one in enumerate(objects):
        where = f"custom_nodes[{index}]"
        if isinstance(one, str):
            one = {"url": one}  # noqa: PLW2901 - the short way to write it
        if not isinstance(one, Mapping) or not isinstance(one.get("url"), str):
            options.wrong(where, "expected an object with url")
            continue
        if unknown := sorted(one.keys() - _KEYS):
            options.wrong(where, f"no such key: {', '.join(unknown)}; known are {', '.join(sorted(_KEYS))}")
        url = one["url"]
        name = str(one.get("name") or url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git"))
        ref = str(one.get("commit") or one.get("ref") or one.get("branch") or "HEAD")
        script = str(one.get("script") or "")
        if not _NAME.fullmatch(name):
            options.wrong(where, f"the name {name[:50]!r} does not do for a folder; give a name")
        if script and not _NAME.fullmatch(script):
            options.wrong(where, f"the script {script[:50]!r} is not a file of the repository's own folder")
        if any(name == other.name for other in nodes):
            options.wrong(where, f"a second repository is to become {name!r}")
        nodes.append(CustomNode(url, name, ref, script))
    return tuple(nodes)

"""Automatic1111's Stable Diffusion WebUI."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from emp_core.connectors.base import ServiceConfig
from emp_core.services.installer import Installer, Step
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance
from emp_machine.installers.options import Options
from emp_machine.probe import answers, require_done
from emp_machine.steps import Command, Downloads, GitCheckout, VirtualEnv, read_manifest

__all__ = ["A1111ManagementClient"]

_REPOSITORY = "https://github.com/AUTOMATIC1111/stable-diffusion-webui.git"
_LOOPBACK = "127.0.0.1"


class A1111ManagementClient(Installer):
    """The WebUI with its API. ``installer_config``: ``repo_url``, ``branch`` (a branch, tag or whole commit), ``python`` (the one
    that its virtual environment is made from; the WebUI asks for 3.10 or 3.11), ``args`` (more arguments), ``models`` (a
    manifest of files below the WebUI's folder).

    Its own launcher installs what it needs: ``launch.py --exit`` does that and ends.
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        super().__init__(config, folder)
        options = Options(config)
        self._repo_url = options.text("repo_url", _REPOSITORY)
        self._branch = options.text("branch", "v1.10.1")
        self._python = options.text("python", sys.executable)
        self._args = tuple(shlex.split(options.text("args")))
        self._models = options.value("models")
        self._options = options

    @property
    def _repo(self) -> Path:
        return self.folder / "stable-diffusion-webui"

    @property
    def _venv(self) -> VirtualEnv:
        return VirtualEnv("make its virtual environment", self.folder / "venv", self._python)

    def steps(self) -> Sequence[Step]:
        """The repository, its environment, its models."""
        self._options.check()
        entries = read_manifest(self._models, f"services.{self.config.name}.installer_config.models")
        prepare = (str(self._venv.python), "launch.py", "--exit", "--skip-torch-cuda-test", "--no-download-sd-model")
        return (
            GitCheckout("get the WebUI", self._repo_url, self._repo, self._branch),
            self._venv,
            Command(
                "let it install what it needs",
                self.folder,
                prepare,
                cwd=self._repo,
                of=(self._repo_url, self._branch),
                remembered_in=self._venv.folder,
            ),
            *([Downloads("fetch its models", self._repo, entries, environ=self.config.environ)] if entries else ()),
        )

    async def verify(self) -> None:
        """Start it for a moment, and ask whether it answers."""
        await require_done(self.steps(), "the WebUI")
        await answers(self.launch, self.config.name, self.folder, self.config.environ)

    def launch(self, instance: ServiceInstance) -> Launch:
        """Its launcher, without looking for updates."""
        self._options.check()
        port = instance.port or 7860
        listen = () if instance.host == _LOOPBACK else ("--listen", "--server-name", instance.host)
        return Launch(
            argv=(
                str(self._venv.python),
                *("launch.py", "--api", "--skip-install", "--skip-torch-cuda-test", "--port", str(port)),
                *listen,
                *self._args,
            ),
            cwd=self._repo,
            health=HealthCheck(f"http://{instance.reached_at}:{port}/internal/ping", port, start_s=600.0),
        )

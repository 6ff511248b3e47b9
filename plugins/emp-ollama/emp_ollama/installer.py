"""Ollama on a machine of ours: its program and its models, without root.

Its steps come from emp-machine (``pip install "emp-ollama[machine]"``), which runs it.
"""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
from emp_machine.installers.options import Options
from emp_machine.probe import Ask, answers, require_done
from emp_machine.steps import Downloads, FileEntry, Unpack
from emp_machine.steps.records import read_record, write_record

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.streams import lines, parsed
from emp_core.errors import EmpError, InstallError
from emp_core.services.installer import Installer, Step, StepContext, shell_line
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance
from emp_ollama.models import full_name
from emp_ollama.pulling import PullProgress

__all__ = ["OllamaDaemonInstaller", "PullModels"]

_RELEASE = "https://github.com/ollama/ollama/releases/download/v{version}/ollama-{system}-{arch}.{ending}"
_SILENCE_S = 300.0
"""A registry may say nothing for so long while it writes a large layer."""


class OllamaDaemonInstaller(Installer):
    """Ollama. ``installer_config``:

    - ``version``: the release, such as ``0.18.2``.
    - ``url``, ``sha256``: another archive of the program, and its checksum.
    - ``binary``: a program that is there already; nothing is fetched then.
    - ``default_model``, ``models``: what to pull; one name, and a list of them.
    - ``models_folder``: where models are kept, if not in the service's folder.
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        super().__init__(config, folder)
        options = Options(config)
        version = options.text("version", "0.18.2").removeprefix("v")
        self._url = options.text("url") or _RELEASE.format(version=version, **_machine())
        self._sha256 = options.text("sha256").lower() or None
        self._binary = options.text("binary")
        wanted = (options.text("default_model"), *options.words("models"))
        self._wanted = tuple(dict.fromkeys(full_name(name) for name in wanted if name))
        self._models = Path(options.text("models_folder") or folder / "models").expanduser()
        self._options = options

    @property
    def _program(self) -> str:
        return self._binary or str(self.folder / "program" / "bin" / "ollama")

    def steps(self) -> Sequence[Step]:
        """The program, and the models."""
        self._options.check()
        steps: list[Step] = []
        if not self._binary:
            archive = httpx.URL(self._url).path.rsplit("/", 1)[-1] or "ollama.tgz"
            entry = FileEntry(self._url, archive, self._sha256)
            steps.append(Downloads("fetch Ollama", self.folder / "fetched", [entry], environ=self.config.environ))
            steps.append(Unpack("unpack Ollama", self.folder / "fetched" / archive, self.folder / "program"))
        if self._wanted or not steps:
            steps.append(PullModels(self, self._models, self._wanted))
        return steps

    async def verify(self) -> None:
        """Start it for a moment on a free port, and ask it for its models.

        Raises:
            InstallError: something is missing, or it does not answer.
        """
        await require_done(self.steps(), "Ollama")
        await self.run(self._has_them)

    def launch(self, instance: ServiceInstance) -> Launch:
        """``ollama serve``. It sees the models of all instances."""
        self._options.check()
        port = instance.port or 11434
        own, host = instance.host, instance.reached_at
        return Launch(
            argv=(self._program, "serve"),
            cwd=self.folder,
            environ={
                "OLLAMA_HOST": f"[{own}]:{port}" if ":" in own else f"{own}:{port}",
                "OLLAMA_MODELS": str(self._models),
                "HOME": str(instance.state),  # it keeps a key there
            },
            health=HealthCheck(f"http://{host}:{port}/api/version", port, start_s=60.0),
            worker_environ={"OLLAMA_HOST": f"http://{host}:{port}"},
        )

    async def run(self, ask: Ask) -> None:
        """Run it for as long as ``ask`` takes, on a free port.

        Raises:
            InstallError: it does not start, or does not answer.
        """
        await answers(self.launch, self.config.name, self.folder, self.config.environ, ask=ask)

    async def _has_them(self, url: str) -> None:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30.0) as client:
            there = await _digests(client)
        if missing := [name for name in self._wanted if name not in there]:
            raise InstallError(f"Ollama does not have {', '.join(missing)}", hint="install it again")


class PullModels(Step):
    """Models from Ollama's registry. A pull that was cut off goes on where it was: Ollama keeps what came.

    Args:
        models: the folder that Ollama keeps them in.
    """

    name = "pull its models"

    def __init__(self, installer: OllamaDaemonInstaller, models: Path, wanted: Sequence[str]) -> None:
        self._installer = installer
        self._models = models
        self._wanted = tuple(wanted)

    @property
    def _record(self) -> Path:
        return self._models / "emp-pulled.json"

    def commands(self) -> Sequence[str]:
        """What a person would type to the same end, while ``ollama serve`` runs."""
        pulls = [
            shell_line(["ollama", "pull", name], environ={"OLLAMA_MODELS": str(self._models)}) for name in self._wanted
        ]
        return pulls or ["true  # no models are listed"]

    async def is_done(self) -> bool:
        """Each was pulled into this folder, and the folder still has Ollama's files."""
        there = not self._wanted or (self._models / "blobs").is_dir()
        return there and self._record.is_file() and set(self._wanted) <= read_record(self._record).keys()

    async def do(self, context: StepContext) -> None:
        """Pull them, one after the other.

        Raises:
            InstallError: the registry does not have one, or cannot be reached.
        """
        self._models.mkdir(parents=True, exist_ok=True)
        pulled: dict[str, str] = {}
        if self._wanted:

            async def pull(url: str) -> None:
                timeout = httpx.Timeout(_SILENCE_S, connect=10.0)
                async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=timeout) as client:
                    for number, model in enumerate(self._wanted):
                        await self._pull(client, model, number, context)
                    digests = await _digests(client)
                pulled.update({name: digests.get(name, "") for name in self._wanted})

            await self._installer.run(pull)
        write_record(self._record, dict(pulled))
        for name, digest in pulled.items():
            context.fetched(f"model {name}", f"sha256:{digest}")

    async def _pull(self, client: httpx.AsyncClient, model: str, number: int, context: StepContext) -> None:
        progress = PullProgress(model, str(client.base_url))
        try:
            async with client.stream("POST", "/api/pull", json={"model": model}) as answer:
                async for line in lines(answer.aiter_bytes(), max_line_bytes=2**20):
                    progress.take(parsed(line, str(client.base_url)))
                    context.progress((number + progress.fraction) / len(self._wanted), progress.message)
            progress.prove()
        except httpx.HTTPError as error:
            raise InstallError(
                f"pulling {model} broke off: {type(error).__name__}: {error}", hint="try again"
            ) from error
        except EmpError as error:
            raise InstallError(error.message, hint=error.hint, details=dict(error.details)) from error


async def _digests(client: httpx.AsyncClient) -> Mapping[str, str]:
    """The models that a server has, with their digests."""
    try:
        answer = await client.get("/api/tags")
        models = answer.raise_for_status().json()["models"]
        return {str(model["name"]): str(model.get("digest", "")) for model in models}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise InstallError(f"Ollama does not tell its models: {type(error).__name__}: {error}") from error


def _machine() -> dict[str, str]:
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    if platform.system() == "Darwin":
        return {"system": "darwin", "arch": "universal", "ending": "tgz"}
    return {"system": "linux", "arch": arch, "ending": "tar.zst"}

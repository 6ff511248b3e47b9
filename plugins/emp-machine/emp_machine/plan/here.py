"""The plan of this machine: its environment, its service mapping, its GPUs, and who listens on its ports."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from attrs import frozen

from emp_core.config import Settings, environment, load_settings
from emp_core.plugins.manager import load_plugins
from emp_core.services.load import load_mapping
from emp_machine.envfile import DEFAULT, read_env_file
from emp_machine.gpus import found_gpus
from emp_machine.plan.aliases import with_aliases
from emp_machine.plan.model import MachinePlan
from emp_machine.plan.planning import plan_machine
from emp_machine.plan.strangers import strangers
from emp_machine.settings import MachineSettings, root_of

__all__ = ["Surroundings", "look_around", "plan_here"]


@frozen
class Surroundings:
    """What a plan is made from, as it is on this machine.

    Attributes:
        environ: the process's environment over what the file of variables says.
        from_file: names of the variables that stand in the file.
    """

    environ: Mapping[str, str]
    from_file: frozenset[str]


def look_around(env_file: Path | None = None) -> Surroundings:
    """The environment: that of this process, and below it ``env_file``, or the `.env` of the current folder.

    Raises:
        ConfigError: the file cannot be read.
    """
    path = env_file if env_file is not None else DEFAULT if DEFAULT.is_file() else None
    given = {} if path is None else read_env_file(path)
    own = {name: value for name, value in environment().items() if value.strip() or name not in given}
    return Surroundings({**given, **own}, frozenset(given))


def plan_here(env_file: Path | None = None, *, taken: Mapping[int, str] | None = None) -> MachinePlan:
    """The plan of this machine.

    Args:
        env_file: a file of variables; the `.env` of the current folder when not given.
        taken: ports that others listen on, and who they are; looked for when not given.

    Raises:
        ConfigError: the machine cannot run what is asked of it; lists every reason.
    """
    around = look_around(env_file)
    environ, _ = with_aliases(around.environ)
    plugins = load_plugins()
    settings, machine = Settings.from_env(environ), load_settings(MachineSettings, environ)
    asked = _Asked(environ)
    mapping = load_mapping(settings, plugins, asked)
    gpus, trouble = ((), ()) if machine.gpu_mode == "mock" else found_gpus()
    return plan_machine(
        mapping,
        plugins,
        around.environ,
        gpus,
        gpu_trouble=trouble,
        taken=strangers(root_of(settings, machine)) if taken is None else taken,
        handed_on={*around.from_file, *asked.names},
    )


class _Asked(Mapping[str, str]):
    """An environment that knows which variables it was asked for: those are what a service mapping refers to."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.names.add(name)
        return self._environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._environ)

    def __len__(self) -> int:
        return len(self._environ)

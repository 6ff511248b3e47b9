"""`wgpu logs`, `wgpu setup` and `wgpu count`."""

from pathlib import Path

from emp_core.cli.failures import DONE
from emp_core.cli.hub import prepared
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, note
from emp_core.config import Settings, load_settings
from emp_core.errors import ConfigError
from emp_core.log.redaction import hide_secrets
from emp_machine.gpus import found_gpus, usable_gpus
from emp_machine.plan.aliases import with_aliases
from emp_machine.plan.here import look_around
from emp_machine.processes.pidfiles import folder_of
from emp_machine.processes.tailing import tail
from emp_machine.settings import MachineSettings
from emp_machine.wgpu.setup import make_folders, write_scripts
from emp_machine.wgpu.workers import Target, Workers, workers_of_plan

__all__ = ["count", "logs", "setup"]


def logs(target: Target, env_file: Path | None, *, lines: int, follow: bool, as_json: bool) -> int:
    """Show the last lines of workers' logs, and with ``follow`` all that comes."""

    async def run() -> None:
        workers = (await Workers.find(target, env_file)).those
        folders = {one.name: folder_of(one).name for one in workers}
        wide = max(map(len, folders.values()))
        async for line in tail(workers, lines=lines, follow=follow):
            text = clean(line.text)
            shown = text if len(workers) == 1 else f"{folders[line.name]:<{wide}}  {text}"
            emit({"name": line.name, "text": line.text}, shown, as_json=as_json)

    run_async(run)
    return DONE


def setup(target: Target, env_file: Path | None, *, as_json: bool) -> int:
    """Make folders and scripts; say what is there, and what the settings were taken for."""
    prepared()
    plan, workers = workers_of_plan(target, env_file)
    made = (*make_folders(workers), *write_scripts(plan.root))
    emit({"paths": list(made), "notes": list(plan.notes)}, "\n".join(map(str, made)), as_json=as_json)
    if not as_json:
        for one in plan.notes:
            note(f"Note: {clean(hide_secrets(one))}")
    return DONE


def count(env_file: Path | None, *, as_json: bool) -> int:
    """Print how many GPUs there are for services; what is wrong with them is said beside.

    Raises:
        ConfigError: the settings want GPUs that are not there.
    """
    prepared()
    environ, _ = with_aliases(look_around(env_file).environ)
    settings, machine = Settings.from_env(environ), load_settings(MachineSettings, environ)
    found, trouble = ((), ()) if machine.gpu_mode == "mock" else found_gpus()
    problems: list[str] = []
    notes: list[str] = []
    usable = usable_gpus(settings, machine, environ, found, trouble, problems, notes)
    if problems:
        raise ConfigError("the GPUs of this machine cannot be counted", problems=tuple(problems))
    emit({"count": len(usable)}, str(len(usable)), as_json=as_json)
    if not as_json:
        for one in notes:
            note(f"Note: {clean(one)}")
    return DONE

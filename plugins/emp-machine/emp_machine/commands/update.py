"""`emp machine update`: new code for the workers, one after another."""

from collections.abc import Sequence
from pathlib import Path

import click
from attrs import asdict

from emp_core.cli.failures import DONE
from emp_core.cli.interruptible import run_async
from emp_core.cli.output import clean, emit, json_option, note
from emp_core.errors import ConfigError, EmpError
from emp_core.log.redaction import hide_secrets
from emp_machine.commands import driving
from emp_machine.commands.options import env_file_option
from emp_machine.commands.running import Here, find_here
from emp_machine.errors import MachineError
from emp_machine.processes.care import Standing
from emp_machine.processes.interface import ProcessState
from emp_machine.updating import Change, install_packages, our_packages

__all__ = ["update"]


@click.command()
@click.argument("packages", nargs=-1, metavar="[PACKAGE]...")
@env_file_option
@json_option
def update(packages: tuple[str, ...], env_file: Path | None, as_json: bool) -> int:
    """Install packages where the workers run, and restart the workers with them one after another.

    PACKAGE is what pip takes: a name, `emp-core==0.2.0`, a wheel, a folder. Without one, emp-core and all installed plugins
    go to their newest versions. Each worker lets its jobs end first, and the next one is restarted when the one before has
    registered again. One that does not come back ends the update there: the others go on with the code that they have
    loaded. Workers that somebody stopped are left so.

    To restart workers one after another without installing anything: `emp machine reload workers`.

    \b
    Examples:
      emp machine update
      emp machine update emp-core==0.2.0 ./emp_comfyui-0.2.0-py3-none-any.whl
    """
    here = find_here(env_file)
    wanted = packages or our_packages()

    def tell(text: str) -> None:
        if not as_json:
            note(clean(hide_secrets(text)))

    async def run() -> tuple[tuple[Change, ...], tuple[str, ...]]:
        names = await _workers(here)
        if names:
            driving.hub_of(here)  # nothing is installed when nobody could tell whether the workers are back
        tell(f"Installing {' '.join(wanted)}")
        changes = await install_packages(here.root, wanted)
        for one in changes:
            tell(str(one))
        back: list[str] = []

        def on_well(name: str) -> None:
            back.append(name)
            tell(f"{name} works again")

        if names:
            try:
                await driving.reload(here, names, on_well)
            except EmpError as error:
                raise _aborted(error, names, back, changes) from error
        return changes, tuple(back)

    changes, back = run_async(run)
    data = {"changed": [asdict(one) for one in changes], "reloaded": list(back)}
    emit(data, f"{len(changes)} packages changed, {len(back)} workers restarted.", as_json=as_json)
    return DONE


async def _workers(here: Here) -> tuple[str, ...]:
    """All but those that somebody stopped: one that failed may be mended by what comes."""
    workers = {one.name for one in here.roster.processes if one.worker}
    given_up = {name for name, one in here.verdicts.items() if one.standing is Standing.GIVEN_UP}
    return tuple(
        one.name
        for one in await here.manager.status()
        if one.name in workers and (one.state is not ProcessState.STOPPED or one.name in given_up)
    )


def _aborted(error: EmpError, names: Sequence[str], back: Sequence[str], changes: Sequence[Change]) -> EmpError:
    """What went wrong, who runs what now, and how to go back."""
    failed, *left = names[len(back) :]
    before = " ".join(f"{one.name}=={one.before}" for one in changes if one.before is not None)
    go_back = f"; `emp machine update {before}` goes back" if before else ""
    if isinstance(error, ConfigError):
        return error
    return MachineError(
        f"the update ended at {failed}: {error.message}; with the new code: {', '.join(back) or 'none'}; "
        f"with what they had loaded before: {', '.join(left) or 'none'}",
        hint=f"`emp machine logs {failed}` shows what it said{go_back}",
        details={"failed": failed, "reloaded": list(back), "left": left, "changed": [asdict(one) for one in changes]},
    )

"""`emp machine doctor`: what is wrong with this box."""

from pathlib import Path

import click

from emp_core.cli.doctor import tell_checks
from emp_core.cli.output import json_option
from emp_core.telemetry.logs import configure_logs
from emp_machine.commands.options import env_file_option
from emp_machine.doctor import check_box

__all__ = ["doctor"]


@click.command()
@env_file_option
@json_option
def doctor(env_file: Path | None, as_json: bool) -> int:
    """Check this machine for `emp machine up`, and say what to do: driver, folder, disk, process managers, git, plan, Redis.

    Nothing is started. `emp doctor` checks what workers need besides. A warning stands for what may be as it should, a
    failure for what keeps the machine from working: exit 0 without failures, 3 when all that failed is that something could
    not be reached, 2 otherwise.

    \b
    Examples:
      WORKERS=comfyui emp machine doctor
      emp machine doctor --env-file box.env --json | jq '.data[] | select(.state != "ok")'
    """
    configure_logs("error")  # what the parts would warn of stands in the checks
    return tell_checks(lambda: check_box(env_file), as_json=as_json)

"""``worker {start|stop|restart|status} N``: one GPU's workers. `wgpu setup` makes a script of it.

pip does not install it by its name: that belongs to many, and whoever is installed last would take it from the others.
"""

import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from emp_core.cli.main import run

__all__ = ["main", "worker"]


@click.command(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, or it runs; 1 it failed; 2 wrong usage, no such GPU or wrong settings; of status also 3 it does "
    "not run, 4 nobody can tell.",
)
@click.argument("action", type=click.Choice(["start", "stop", "restart", "status"]))
@click.argument("gpu_num", type=click.IntRange(min=0), metavar="GPU_NUM")
def worker(action: str, gpu_num: int) -> int:
    """Start, end or look at the workers of one GPU. `wgpu` does it for all of them, and shows their logs.

    \b
    Examples:
      worker start 0
      worker status 0 || worker restart 0
    """
    from emp_machine.wgpu.telling import change, status
    from emp_machine.wgpu.workers import Workers

    if action == "status":
        return status(gpu_num, None, as_json=False)
    deed = {"start": Workers.start, "stop": Workers.stop, "restart": Workers.restart}[action]
    return change(deed, gpu_num, None, to_start=action != "stop", as_json=False)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, command=worker, name="worker"))


if __name__ == "__main__":
    main()

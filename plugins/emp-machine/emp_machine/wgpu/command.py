"""``wgpu``: finds the command. What it needs is imported when it is used."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from emp_core.cli.main import run
from emp_core.cli.output import json_option
from emp_machine.commands.options import env_file_option

__all__ = ["main", "wgpu"]


def _gpu(_context: click.Context, _parameter: click.Parameter, value: str) -> int | str:
    """The number of a GPU, or ``all``."""
    if value == "all":
        return value
    if not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(f"{value!r}: expected the number of a GPU, or all")
    return int(value)


gpu_argument = click.argument("gpu_id", callback=_gpu, default="all", metavar="[GPU_ID|all]")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 it failed, 2 wrong usage, no such GPU or wrong settings, 3 something could not be reached. "
    "Of `wgpu status`: 0 all of them run, 3 one does not run, 4 nobody can tell.",
)
def wgpu() -> None:
    """Look after the workers of this machine by the numbers of their GPUs.

    They are kept by what `emp machine up` keeps them with. Without a number, or with `all`, all workers are meant, also
    those that are bound to no GPU.

    \b
    Examples:
      wgpu start all
      wgpu status 0 || wgpu restart 0
      wgpu logs 1 -f
    """


@wgpu.command()
@gpu_argument
@env_file_option
@json_option
def start(gpu_id: int | str, env_file: Path | None, as_json: bool) -> int:
    """Start workers, and the services that they need.

    What runs stays as it is, and counts as started.

    \b
    Examples:
      wgpu start 0
      WORKERS=comfyui wgpu start all
    """
    from emp_machine.wgpu.telling import change
    from emp_machine.wgpu.workers import Workers

    return change(Workers.start, gpu_id, env_file, to_start=True, as_json=as_json)


@wgpu.command()
@gpu_argument
@env_file_option
@json_option
def stop(gpu_id: int | str, env_file: Path | None, as_json: bool) -> int:
    """End workers: their jobs end first (EMP_GRACE_S). They stay so until somebody starts them; services run on.

    \b
    Examples:
      wgpu stop 1
    """
    from emp_machine.wgpu.telling import change
    from emp_machine.wgpu.workers import Workers

    return change(Workers.stop, gpu_id, env_file, to_start=False, as_json=as_json)


@wgpu.command()
@gpu_argument
@env_file_option
@json_option
def restart(gpu_id: int | str, env_file: Path | None, as_json: bool) -> int:
    """End workers, side by side, and start them again. `emp machine reload workers` does it one after another.

    \b
    Examples:
      wgpu restart 0
    """
    from emp_machine.wgpu.telling import change
    from emp_machine.wgpu.workers import Workers

    return change(Workers.restart, gpu_id, env_file, to_start=True, as_json=as_json)


@wgpu.command()
@gpu_argument
@env_file_option
@json_option
def status(gpu_id: int | str, env_file: Path | None, as_json: bool) -> int:
    """Show whether workers run.

    There is a line for each: its folder, its state, its process id or a dash, its name. The state is `running`,
    `starting`, `stopping`, `stopped` or `failed`. Exit 0: all of them run; 3: one does not; 4: nobody
    can tell.

    \b
    Examples:
      wgpu status
      wgpu status 0 > /dev/null || echo 'GPU 0 has no worker' | mail -s gpu0 root
    """
    from emp_machine.wgpu import telling

    return telling.status(gpu_id, env_file, as_json=as_json)


@wgpu.command()
@gpu_argument
@click.option("-n", "--lines", default=20, show_default=True, type=click.IntRange(0, 100_000), help="Lines of each.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@env_file_option
@json_option
def logs(gpu_id: int | str, lines: int, follow: bool, env_file: Path | None, as_json: bool) -> int:
    """Show what workers have put out last. Where several are shown, each line begins with its worker's folder.

    \b
    Examples:
      wgpu logs 0
      wgpu logs all -f
    """
    from emp_machine.wgpu import showing

    return showing.logs(gpu_id, env_file, lines=lines, follow=follow, as_json=as_json)


@wgpu.command()
@gpu_argument
@env_file_option
@json_option
def setup(gpu_id: int | str, env_file: Path | None, as_json: bool) -> int:
    """Make workers' folders, and scripts to look after them.

    The scripts `wgpu` and `worker` are in the folder `scripts` of the machine's folder, and speak of this machine
    wherever they are called from, cron included.

    \b
    Examples:
      WORKERS=comfyui wgpu setup all
      export EMP_MACHINE_ROOT=/workspace WORKERS=comfyui
      wgpu setup 0 && /workspace/scripts/worker start 0
    """
    from emp_machine.wgpu import showing

    return showing.setup(gpu_id, env_file, as_json=as_json)


@wgpu.command()
@env_file_option
@json_option
def count(env_file: Path | None, as_json: bool) -> int:
    """Print how many GPUs services may have here.

    It prints the number and nothing else. NUM_GPUS, GPU_ID and GPU_MODE are heeded. `emp machine gpus` tells what they are.

    \b
    Examples:
      for gpu in $(seq 0 $(($(wgpu count) - 1))); do wgpu status $gpu; done
    """
    from emp_machine.wgpu import showing

    return showing.count(env_file, as_json=as_json)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments, command=wgpu, name="wgpu"))


if __name__ == "__main__":
    main()

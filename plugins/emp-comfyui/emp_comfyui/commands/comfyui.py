"""`emp comfyui servers`: the servers of a cluster, as they are, and changed while everything runs."""

from typing import Any

import click

from emp_core.cli.failures import DONE
from emp_core.cli.output import emit, json_option

__all__ = ["comfyui"]


@click.group()
def comfyui() -> None:
    """Look after ComfyUI servers.

    \b
    Examples:
      emp comfyui servers
    """


@comfyui.group(invoke_without_command=True)
@click.option("--watch", is_flag=True, help="Keep showing them until Ctrl-C.")
@json_option
@click.pass_context
def servers(context: click.Context, watch: bool, as_json: bool) -> int:
    """Show the ComfyUI servers: state, queue, what runs there, GPU memory.

    They are those of NUKE_COMFYUI_SERVERS, else of NUKE_COMFYUI_IP_1 and so on, else of NUKE_COMFYUI_IP, else the one of
    COMFYUI_HOST, with the changes that the commands below made. Each is asked now. Jobs are named where the queue can be
    reached; prompts of others by their ids.

    \b
    Examples:
      emp comfyui servers
      emp comfyui servers --watch
      emp comfyui servers --json | jq '.data.servers[] | {name, status, running, waiting}'
      emp comfyui servers disable server2
    """
    if context.invoked_subcommand is not None:
        return DONE
    from emp_comfyui.commands.looking import look
    from emp_comfyui.commands.showing import listing, watch_servers
    from emp_core.cli.hub import prepared
    from emp_core.cli.interruptible import run_async

    settings = prepared(quiet=("emp.endpoints", "emp.comfyui"))
    if watch:
        run_async(watch_servers, settings, as_json)
        return DONE
    found = run_async(look, settings)
    emit(found.as_dict(), lambda: listing(found), as_json=as_json)
    return DONE


@servers.command()
@click.argument("name")
@click.argument("address", metavar="IP[:PORT]")
@click.option("--dir-local", help="ComfyUI's folder there, as this machine sees it.")
@click.option("--dir-remote", help="The same folder, as the server sees it.")
@click.option("--priority", type=int, help="1 is preferred, then 2, and so on; 1 when not given.")
@click.option("--slots", type=int, help="Prompts that it runs at once; 1 when not given.")
@click.option("--tls", is_flag=True, help="Whether it is spoken to over https and wss.")
@click.option("--base-path", help="Path in front of all its routes, behind a proxy.")
@click.option("--disabled", is_flag=True, help="Whether it gets no jobs yet.")
@json_option
def add(name: str, address: str, as_json: bool, **about: Any) -> int:
    """Add a server.

    \b
    Examples:
      emp comfyui servers add server3 192.168.1.189:8188
      emp comfyui servers add server3 192.168.1.189 --dir-local U:/ --dir-remote /home/me/ComfyUI/ --priority 2
    """
    from emp_comfyui.commands.changing import added, entry_of

    return _changed(added(name, entry_of(address, **about)), "was added", as_json=as_json)


@servers.command()
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> int:
    """Take a server out. Jobs that run there go on.

    \b
    Examples:
      emp comfyui servers remove server3
    """
    from emp_comfyui.commands.changing import removed

    return _changed(removed(name), "was removed", as_json=as_json)


@servers.command()
@click.argument("name")
@json_option
def enable(name: str, as_json: bool) -> int:
    """Give a server jobs again.

    \b
    Examples:
      emp comfyui servers enable server2
    """
    from emp_comfyui.commands.changing import changed

    return _changed(changed(name, enabled=True), "is enabled", as_json=as_json)


@servers.command()
@click.argument("name")
@json_option
def disable(name: str, as_json: bool) -> int:
    """Give a server no more jobs. Those that run there go on.

    \b
    Examples:
      emp comfyui servers disable server2
    """
    from emp_comfyui.commands.changing import changed

    return _changed(changed(name, enabled=False), "is disabled", as_json=as_json)


@servers.command()
@click.argument("name")
@click.argument("priority", type=int)
@json_option
def priority(name: str, priority: int, as_json: bool) -> int:
    """Prefer a server more or less: 1 comes first.

    \b
    Examples:
      emp comfyui servers priority server2 1
    """
    from emp_comfyui.commands.changing import changed

    return _changed(changed(name, priority=priority), f"has priority {priority}", as_json=as_json)


@servers.command()
@json_option
def reset(as_json: bool) -> int:
    """Undo all changes: the servers are again those that the environment describes.

    \b
    Examples:
      emp comfyui servers reset
    """
    from emp_comfyui.commands.changing import undone

    path, there_were = undone()
    said = f"{path} is removed" if there_were else "nothing was changed"
    emit({"changes": str(path), "removed": there_were}, said, as_json=as_json)
    return DONE


def _changed(shown: dict[str, Any], said: str, *, as_json: bool) -> int:
    emit(
        shown,
        f"{shown['name']} {said}: programs that read {shown['changes']} take it up by themselves",
        as_json=as_json,
    )
    return DONE

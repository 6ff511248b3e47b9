"""Commands of ``emp`` that documents show, taken apart and held against the command line as it is."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from emp_core.cli.main import cli

from .pages import Block
from .running import commands_of

__all__ = ["all_commands", "commands_in", "wrong_with", "wrong_with_options"]

_SEPARATORS = re.compile(r"[;&|()]+")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_UNIT_COMMAND = re.compile(r"^(?:ExecStart|command)\s*=\s*(.*)$", re.MULTILINE)


def commands_in(block: Block) -> Iterator[list[str]]:
    """The arguments of every call of ``emp`` in a block."""
    match block.language:
        case "sh":
            scripts = [block.text]
        case "console":
            scripts = [command for command, _ in commands_of(block)]
        case "ini":
            scripts = _UNIT_COMMAND.findall(block.text)
        case _:
            scripts = []
    for script in scripts:
        for line in script.replace("\\\n", " ").splitlines():
            yield from _calls(line)


def _calls(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.wordchars += "@:,+%"
    call: list[str] = []
    calls = [call]
    skip = False
    for token in lexer:
        if skip:
            skip = False
        elif _SEPARATORS.fullmatch(token):
            call = []
            calls.append(call)
        elif set(token) <= {"<", ">"}:
            skip = True  # where it is redirected to
        else:
            call.append(token)
    for words in calls:
        while words and _ASSIGNMENT.match(words[0]):
            words.pop(0)
        if words and Path(words[0]).name == "emp":
            yield words[1:]


def all_commands(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """The core's commands with their full names, groups included."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))


def wrong_with(arguments: list[str]) -> str | None:
    """What ``emp`` has against these arguments, or None."""
    try:
        _parse(cli, "emp", arguments, None)
    except click.exceptions.Exit:
        return None
    except click.UsageError as error:
        return f"emp {shlex.join(arguments)}: {error.format_message()}"
    return None


def _parse(command: click.Command, name: str, arguments: list[str], parent: click.Context | None) -> None:
    if not isinstance(command, click.Group) or not arguments or arguments[0].startswith("-"):
        with command.make_context(name, list(arguments), parent=parent):
            return
    context = click.Context(command, info_name=name, parent=parent)
    found, inner, rest = command.resolve_command(context, list(arguments))
    assert inner is not None
    _parse(inner, found or "", rest, context)


def wrong_with_options(arguments: list[str]) -> str | None:
    """The same for a command in running text, which may leave its arguments out."""
    command: click.Command = cli
    words = [word for word in arguments if not word.startswith("-")]
    for word in words:
        if not isinstance(command, click.Group):
            break
        inner = command.get_command(click.Context(command), word)
        if inner is None:
            return f"emp {shlex.join(arguments)}: there is no command {word!r}"
        command = inner
    known = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    unknown = [
        word for word in arguments if word.startswith("-") and word != "-" and word.partition("=")[0] not in known
    ]
    return f"emp {shlex.join(arguments)}: there is no {', '.join(unknown)}" if unknown else None

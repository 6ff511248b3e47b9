"""What the commands write: results to stdout, everything else to stderr."""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import PurePath
from typing import Any, TextIO

import click

__all__ = ["OutputClosed", "clean", "emit", "emit_failure", "json_option", "note", "path_of", "table", "warn"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON: {ok, data} or {ok, error}.")


class OutputClosed(Exception):
    """Whoever read our output has gone. No OSError, so that it is not mistaken for a lost connection."""


def emit(data: Any, text: str | Callable[[], str], *, as_json: bool) -> None:
    """Print a result: ``data`` as JSON, or ``text`` for people."""
    if as_json:
        _write_json({"ok": True, "data": data})
        return
    shown = text() if callable(text) else text
    if shown:
        _write(shown)


def emit_failure(error: Mapping[str, Any], data: Any = None) -> None:
    """Print the JSON document of something that went wrong."""
    _write_json({"ok": False, "error": error, **({} if data is None else {"data": data})})


def note(text: str) -> None:
    """Tell something that is not the result."""
    _write(text, sys.stderr)


def warn(text: str) -> None:
    """Tell what may go wrong."""
    label = click.style("warning:", fg="yellow", bold=True) if sys.stderr.isatty() else "warning:"
    _write(f"{label} {text}", sys.stderr)


def clean(text: Any) -> str:
    """The text in one line, with nothing that would steer a terminal: it may come from a service."""
    return "".join(char if char.isprintable() else " " if char.isspace() else "�" for char in str(text)).strip()


def path_of(url: str) -> str:
    """The path that a ``file://`` URL names; any other URL as it is."""
    if not url.startswith("file:///"):
        return url
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(url).path)


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table: drawn on a terminal, columns of plain text otherwise. Cells are shown in one line each."""
    cells = [["" if cell is None else clean(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        return _plain_table(columns, cells)
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        # The first column names the thing: it is needed whole to be typed again.
        drawn.add_column(column, overflow="fold", no_wrap=number == 0)
    for row in cells:
        drawn.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    with console.capture() as captured:
        console.print(drawn)
    return captured.get().rstrip("\n")


def _plain_table(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _write_json(document: Mapping[str, Any]) -> None:
    # Names outside of ASCII stay readable where the terminal or file can hold them.
    ascii_only = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    _write(json.dumps(document, ensure_ascii=ascii_only, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return sorted(value, key=str)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be shown as JSON")


def _write(text: str, stream: TextIO | None = None) -> None:
    target: TextIO = sys.stdout if stream is None else stream
    encoding = target.encoding or "utf-8"
    try:
        click.echo(text.encode(encoding, "replace").decode(encoding), file=target)
        target.flush()
    except BrokenPipeError as error:
        raise OutputClosed from error

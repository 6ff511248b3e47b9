"""The `.env` file: variables for a machine, read without a shell."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from emp_core.errors import ConfigError

__all__ = ["DEFAULT", "read_env_file"]

DEFAULT = Path(".env")
"""The file that is read where none is named, if it exists."""

_MAX_BYTES = 2**20


def read_env_file(path: Path) -> Mapping[str, str]:
    """The variables of a file: ``NAME=value``, with or without ``export``, quotes and comments. ``$`` stands for itself.

    Raises:
        ConfigError: it cannot be read, or has lines that are no variables; lists all of them.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the file of variables {path} cannot be read: {error.strerror or error}",
            hint="give --env-file the path of a file that this user may read",
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"the file of variables {path} is larger than {_MAX_BYTES:,} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the file of variables {path} is not UTF-8: {error.reason} at byte {error.start}") from error
    wrong = [
        f"line {binding.original.line}: expected NAME=value"
        for binding in parse_stream(StringIO(text))
        if binding.error or (binding.key is not None and binding.value is None)
    ]
    if wrong:
        raise ConfigError(f"the file of variables {path} cannot be used", problems=tuple(wrong))
    return {name: value for name, value in dotenv_values(stream=StringIO(text), interpolate=False).items() if value}

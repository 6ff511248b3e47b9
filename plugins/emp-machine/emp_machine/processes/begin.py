"""Begins a process as a file says: ``python -I -S begin.py FILE``.

supervisor's configuration cannot hold every text: it has no way to write a variable with both kinds of quotes, and takes what
follows " ;" or " #" for a comment. So program, arguments and variables stand in a JSON file that only its user can read; this
program reads it, and becomes the other. It needs nothing but the standard library.
"""

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Become the program."""
    order = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    argv = order["argv"]
    try:
        os.execvpe(argv[0], argv, {**os.environ, **order["environ"]})  # noqa: S606 - as the plan says; no shell reads it
    except OSError as error:
        print(f"{argv[0]} cannot be run: {error.strerror or error}", file=sys.stderr)  # noqa: T201 - for the process's log
        sys.exit(127)


if __name__ == "__main__":
    main()

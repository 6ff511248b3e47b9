"""Holds a value against a JSON schema, in a process of its own: ``python -m emp_ollama.fitting``; see `emp_ollama.schemas`.

Reads ``{"schema", "value", "limit_s"}``; writes ``{"problems": […]}``, or ``{"error"}`` when it cannot tell.
"""

import json
import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice
from typing import Any

from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

__all__ = ["fits", "main"]

_PROBLEMS_SHOWN = 5
_PROBLEM_CHARS = 200
_MEMORY_BYTES = 4 * 2**30


def main() -> None:
    """Read, judge, write."""
    told = json.load(sys.stdin)
    limit_resources(told["limit_s"])
    try:
        answer: dict[str, Any] = {"problems": fits(told["value"], told["schema"])}
    except RecursionError:
        answer = {"error": "the schema leads back to itself"}
    except MemoryError:
        answer = {"error": "that takes more memory than it may"}
    except Exception as error:  # whatever a schema from outside brings about is said of this schema
        answer = {"error": f"{type(error).__name__}: {error}"[:500]}
    json.dump(answer, sys.stdout)


def fits(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """The first few places where it does not."""
    validator = validator_for(schema, default=Draft202012Validator)(schema, registry=Registry())
    found = islice(validator.iter_errors(value), _PROBLEMS_SHOWN)
    return [f"{one.json_path}: {one.message}"[:_PROBLEM_CHARS] for one in found]


def limit_resources(limit_s: float) -> None:
    """Have the system end this process when it takes too much, should nobody else be there to do it."""
    if sys.platform == "win32":
        return
    import resource

    for kind, most in ((resource.RLIMIT_CPU, math.ceil(limit_s)), (resource.RLIMIT_AS, _MEMORY_BYTES)):
        with suppress(ValueError, OSError):  # not every system can limit both
            resource.setrlimit(kind, (most, most))


if __name__ == "__main__":
    main()

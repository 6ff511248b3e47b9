"""JSON schemas that jobs bring: checked before an answer is asked for, and held against it in a process of its own.

A schema comes from outside. One that refers to itself without end, or whose patterns take for ever, would hold up everything
that a worker does: held against an answer it has a process of its own, with a time limit. Nothing that it refers to is fetched.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import anyio
from jsonschema.exceptions import SchemaError
from jsonschema.validators import Draft202012Validator, validator_for

from emp_core.errors import InvalidJob, JobFailed

__all__ = ["check_schema", "problems_of"]

MAX_SCHEMA_CHARS = 64 * 2**10
CHECK_LIMIT_S = 10.0
_CHECKER = ("-P", "-m", "emp_ollama.fitting")


def check_schema(schema: Mapping[str, Any]) -> None:
    """Find out that a schema is one that answers can be held against.

    Raises:
        ValueError: it is none, it is too long, or it refers to something outside of itself; says where.
    """
    try:
        text = json.dumps(schema)
        if len(text) > MAX_SCHEMA_CHARS:
            raise ValueError(f"expected a schema of {MAX_SCHEMA_CHARS:,} characters at most, not of {len(text):,}")
        problem = _problem_with(text)
    except RecursionError:
        problem = "expected a schema that is not nested so deeply"
    if problem is not None:
        raise ValueError(problem)


@lru_cache(maxsize=64)
def _problem_with(text: str) -> str | None:
    """What is wrong with a schema. A job's payload is read several times on its way, and jobs come with the same schema."""
    schema = json.loads(text)
    try:
        validator_for(schema, default=Draft202012Validator).check_schema(schema)
        for key, value in _entries(schema):
            if key in ("$ref", "$dynamicRef") and isinstance(value, str):
                _check_reference(value, schema)
    except SchemaError as error:
        return f"expected a JSON schema: {error.json_path}: {error.message}"[:500]
    except ValueError as error:
        return str(error)
    return None


async def problems_of(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """Where a value does not fit a schema; the first few places, in words.

    Raises:
        InvalidJob: that takes too long to find out, or cannot be found out.
        JobFailed: the process that finds it out does not work here.
    """
    told = json.dumps({"schema": schema, "value": value, "limit_s": CHECK_LIMIT_S}).encode()
    try:
        with anyio.fail_after(CHECK_LIMIT_S):
            done = await anyio.run_process(
                [sys.executable, *_CHECKER], input=told, check=False, stderr=subprocess.DEVNULL
            )
    except TimeoutError:
        raise _unusable(f"that is not known after {CHECK_LIMIT_S:g} s") from None
    except OSError as error:
        raise JobFailed(f"a schema cannot be checked here: {error}", details={"reason": "no_checker"}) from error
    if done.returncode < 0:  # stopped by a limit of its own
        raise _unusable("that takes more time or memory than it may")
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        raise JobFailed(
            f"a schema cannot be checked here: {sys.executable} ended with {done.returncode}",
            details={"reason": "no_checker"},
        ) from None
    if "error" in answer:
        raise _unusable(str(answer["error"]))
    return [str(problem) for problem in answer["problems"]]


def _unusable(why: str) -> InvalidJob:
    return InvalidJob(
        f"whether the answer fits the schema cannot be told: {why}",
        hint="simpler patterns, and no references that lead back to themselves",
        details={"reason": "schema"},
    )


def _entries(schema: Any) -> Iterator[tuple[str, Any]]:
    """All keys of all objects within, with their values."""
    left = [schema]
    while left:
        one = left.pop()
        if isinstance(one, Mapping):
            yield from one.items()
            left += one.values()
        elif isinstance(one, list | tuple):
            left += one


def _check_reference(reference: str, schema: Mapping[str, Any]) -> None:
    if not reference.startswith("#"):
        raise ValueError(f"expected references within the schema (#/$defs/…), not {reference[:200]!r}")
    if not reference.startswith("#/"):
        return
    place: Any = schema
    for part in reference[2:].split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(place, Mapping) and key in place:
            place = place[key]
        elif isinstance(place, list) and key.isdecimal() and int(key) < len(place):
            place = place[int(key)]
        else:
            raise ValueError(f"{reference[:200]!r} leads nowhere")

"""Names of stored files. Names from outside never leave the folder that they belong to."""

import re
from pathlib import PurePosixPath

from emp_core.errors import UnsafeName
from emp_core.jobs.destinations import path_problem
from emp_core.jobs.model import Job

__all__ = ["artifact_key", "own_name", "safe_key"]

_NUMBERED = re.compile(r"\d+(\.\d+)?-\d+-")


def safe_key(name: str) -> str:
    """``name`` as a relative path below whatever folder it is put in.

    Raises:
        UnsafeName: it is absolute, climbs, names a drive, or holds characters that mean something to a file system.
    """
    problem = path_problem(name)
    if problem:
        raise UnsafeName(
            f"the name {name[:200]!r} {problem}", hint="use a relative path of plain names, such as 'images/cat.png'"
        )
    return str(PurePosixPath(name))


def artifact_key(job: Job, index: int, name: str) -> str:
    """The key of an output: ``[prefix/]job id/attempt-index-name``.

    No two outputs ever share one, whatever becomes of the job: an attempt that follows one that did not count has the same
    number, and ``attempt.returned`` in its place. The job's ``ctx.prefix`` comes first; ``ctx.filename`` takes the place
    of the name's stem.

    Raises:
        UnsafeName: the name, prefix or file name tries to leave its folder.
    """
    path = PurePosixPath(safe_key(name))
    if job.ctx is not None and job.ctx.filename:
        stem = PurePosixPath(safe_key(job.ctx.filename))
        path = path.with_name(f"{stem.name.removesuffix(path.suffix)}{path.suffix}")
    attempt = f"{job.attempt}.{job.returned}" if job.returned else str(job.attempt)
    own = path.with_name(f"{attempt}-{index}-{path.name}")
    prefix = f"{safe_key(job.ctx.prefix.strip('/'))}/" if job.ctx is not None and job.ctx.prefix else ""
    return f"{prefix}{job.id}/{own}"


def own_name(key: str) -> str:
    """The file name of an output by its key: without folders, attempt and index."""
    name = PurePosixPath(key).name
    numbers = _NUMBERED.match(name)
    return name[numbers.end() :] or name if numbers else name

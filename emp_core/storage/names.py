"""Names of stored files. Names from outside never leave the folder that they belong to."""

from pathlib import PurePosixPath

from emp_core.errors import UnsafeName
from emp_core.jobs.model import Job

__all__ = ["artifact_key", "safe_key"]

_SEGMENT_MAX = 200


def safe_key(name: str) -> str:
    """``name`` as a relative path below whatever folder it is put in.

    Raises:
        UnsafeName: it is absolute, climbs, names a drive, or holds characters that mean something to a file system.
    """
    problem = _problem(name)
    if problem:
        raise UnsafeName(
            f"the name {name[:200]!r} {problem}", hint="use a relative path of plain names, such as 'images/cat.png'"
        )
    return str(PurePosixPath(name))


def _problem(name: str) -> str | None:
    if not name or not name.isprintable():
        return "is empty or holds control characters"
    if "\\" in name:
        return "holds a backslash"
    if name.startswith("/"):
        return "is absolute"
    segments = name.split("/")
    if any(segment in ("", ".", "..") for segment in segments):
        return "tries to leave its folder"
    if any(len(segment.encode()) > _SEGMENT_MAX for segment in segments):
        return f"is longer than {_SEGMENT_MAX} bytes"
    if ":" in segments[0]:
        return "names a drive or a scheme"
    return None


def artifact_key(job: Job, attempt: int, index: int, name: str) -> str:
    """The key of an output: ``[prefix/]job id/attempt-index-name``; two attempts never share one.

    The job's ``ctx.prefix`` comes first; ``ctx.filename`` takes the place of the name's stem.

    Raises:
        UnsafeName: the name, prefix or file name tries to leave its folder.
    """
    path = PurePosixPath(safe_key(name))
    if job.ctx is not None and job.ctx.filename:
        stem = PurePosixPath(safe_key(job.ctx.filename))
        path = path.with_name(f"{stem.name.removesuffix(path.suffix)}{path.suffix}")
    own = path.with_name(f"{attempt}-{index}-{path.name}")
    prefix = f"{safe_key(job.ctx.prefix.strip('/'))}/" if job.ctx is not None and job.ctx.prefix else ""
    return f"{prefix}{job.id}/{own}"

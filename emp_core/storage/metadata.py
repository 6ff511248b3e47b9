"""What stores keep with a file besides its bytes."""

import re
from collections.abc import Mapping

from emp_core.errors import StorageError
from emp_core.jobs.destinations import is_retention_class

__all__ = [
    "RETENTION",
    "SHA256",
    "check_retention",
    "known_by",
    "media_type_header",
    "metadata_of",
]

SHA256 = "empsha256"
"""The name of the checksum in an object's metadata. Where it stands, the object was put there by us."""
RETENTION = "empretention"
"""The name of the retention class in an object's metadata."""

# Names without - and _: servers on the way drop headers with the one, and some services take no name with the other.
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]{1,100}/[\w!#$&^.+-]{1,100}(;[ -~]{0,100})?", re.ASCII)


def check_retention(name: str | None) -> str | None:
    """The name of a retention class.

    Raises:
        StorageError: it cannot be one.
    """
    if name is not None and not is_retention_class(name):
        raise StorageError(
            f"{name[:50]!r} is no retention class", hint="use 1 to 32 letters, digits, '-' or '_', such as 'draft'"
        )
    return name


def metadata_of(sha256: str, retention: str | None) -> dict[str, str]:
    """The metadata of an object."""
    return {SHA256: sha256, **({} if retention is None else {RETENTION: retention})}


def known_by(metadata: Mapping[str, str] | None) -> tuple[str, str | None]:
    """The checksum and retention class in an object's metadata; an empty checksum: somebody else's object."""
    told = {name.lower(): value for name, value in (metadata or {}).items()}
    return told.get(SHA256, ""), told.get(RETENTION)


def media_type_header(media_type: str) -> str:
    """A media type that can stand in a header; what cannot is an octet stream."""
    return media_type if _MEDIA_TYPE.fullmatch(media_type) else "application/octet-stream"

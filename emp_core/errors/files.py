"""What goes wrong with the files of jobs: artifacts that they put out, inputs that they refer to."""

from emp_core.errors.base import EmpError

__all__ = [
    "ArtifactExists",
    "ArtifactNotFound",
    "CannotSign",
    "InputError",
    "InputUnavailable",
    "StorageError",
    "StorageRefused",
    "StorageUnavailable",
    "UnsafeName",
]


class StorageError(EmpError):
    """An artifact could not be stored, read or deleted."""

    code = "storage"


class ArtifactNotFound(StorageError):
    """The store holds nothing under this name."""

    code = "artifact_not_found"


class ArtifactExists(StorageError):
    """The store holds something else under this name, and overwriting was not asked for."""

    code = "artifact_exists"


class UnsafeName(StorageError):
    """A name from outside tries to leave the folder it belongs to."""

    code = "unsafe_name"


class CannotSign(StorageError):
    """The store has no signed addresses, or what it was opened with does not allow them."""

    code = "cannot_sign"
    exit_code = 2


class StorageUnavailable(StorageError):
    """The store cannot be reached or written now (disk full, no permission, network)."""

    code = "storage_unavailable"
    exit_code = 2


class StorageRefused(StorageUnavailable):
    """The store is there and will not have us: wrong credentials, missing rights, no such container or bucket."""

    code = "storage_refused"


class InputError(EmpError):
    """An input that a job refers to cannot be used, or may not be: another attempt cannot help."""

    code = "input"


class InputUnavailable(InputError):
    """An input could not be fetched now: its server is away, busy or broken. Another attempt may go better."""

    code = "input_unavailable"

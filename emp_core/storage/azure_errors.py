"""What the errors of Azure's client mean."""

from collections.abc import Iterator
from contextlib import contextmanager

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)

from emp_core.errors import ArtifactNotFound, StorageError, StorageRefused, StorageUnavailable
from emp_core.storage.trying import said

__all__ = ["is_conflict", "is_missing", "may_pass", "meant"]

_BUSY = (408, 429, 500, 502, 503, 504)
_DAMAGED_ON_THE_WAY = ("Md5Mismatch", "Crc64Mismatch")
_BEING_CHANGED = ("ContainerBeingDeleted", "AccountBeingCreated")
_NO_CONTAINER = ("ContainerNotFound", "ContainerDisabled", "ResourceNotFound")


def may_pass(error: BaseException) -> bool:
    """Whether another try may go better: the service is busy, the network failed, bytes arrived damaged."""
    if isinstance(error, HttpResponseError):
        if error.status_code is None:  # the answer broke off
            return not isinstance(error, ClientAuthenticationError)
        return error.status_code in _BUSY or _code(error) in (*_DAMAGED_ON_THE_WAY, *_BEING_CHANGED)
    return isinstance(error, ServiceRequestError | ServiceResponseError)


def is_conflict(error: AzureError) -> bool:
    """Whether the name is taken: in time, or by another upload to the same name that came first."""
    if not isinstance(error, HttpResponseError):
        return False
    return (error.status_code in (409, 412) and _code(error) not in _BEING_CHANGED) or _code(
        error
    ) == "InvalidBlockList"


def is_missing(error: AzureError) -> bool:
    """Whether there is no such blob, in a container that is there."""
    return isinstance(error, ResourceNotFoundError) and _code(error) not in _NO_CONTAINER


@contextmanager
def meant(what: str, store: str, how: str) -> Iterator[None]:
    """Say what an error of the client means.

    Args:
        what: what was to be done to what: ``store a/b.png``.
        store: the store, for people.
        how: what proved that we may.

    Raises:
        ArtifactNotFound, StorageRefused, StorageUnavailable, StorageError: by what happened.
    """
    try:
        yield
    except AzureError as error:
        raise _meaning(error, f"cannot {what} in {store}", how) from error


def _meaning(error: AzureError, failed: str, how: str) -> StorageError:
    why = said(error)
    if is_missing(error):
        return ArtifactNotFound(f"{failed}: there is none")
    if isinstance(error, ResourceNotFoundError):
        return StorageRefused(f"{failed}: there is no such container", hint="create it, or correct its name")
    if isinstance(error, ClientAuthenticationError) or _status(error) in (401, 403):
        return StorageRefused(
            f"{failed}: Azure does not accept {how} ({_code(error) or 'not authorized'})",
            hint="see whether it belongs to this account, has not run out, and may read, write, list and delete",
        )
    if isinstance(error, ServiceRequestError):
        return StorageUnavailable(
            f"{failed}: the account cannot be reached ({why})",
            hint="see to the network, and to the account's name and endpoint",
        )
    if may_pass(error):
        return StorageUnavailable(
            f"{failed}: the service does not answer as it should ({why})",
            hint="try again later; Azure's status page may say more",
        )
    return StorageError(f"{failed}: {why}")


def _status(error: AzureError) -> int | None:
    return error.status_code if isinstance(error, HttpResponseError) else None


def _code(error: AzureError) -> str:
    """The service's own code of what happened; empty when it told none."""
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or "")

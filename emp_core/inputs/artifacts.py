"""Files that are in an artifact store already: by their key, or by the URL that a result tells."""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from urllib.parse import unquote, urlsplit

from attrs import frozen

from emp_core.errors import ArtifactNotFound, InputError, UnsafeName
from emp_core.inputs.files import Source
from emp_core.jobs.ids import is_job_id
from emp_core.jobs.model import Job
from emp_core.storage.interface import ArtifactStore, StoredObject
from emp_core.storage.names import own_name, safe_key

__all__ = ["UPLOADS", "ArtifactFiles", "JobFacts", "find_artifact", "upload_key"]

UPLOADS = "inputs"
"""The folder of a store that submitters put files into."""

_SEGMENTS_MAX = 12


@frozen
class JobFacts:
    """What of another job decides whether its artifacts may be read: whose it was, and what its result names."""

    customer_id: str | None
    urls: Collection[str]


@frozen
class ArtifactFiles:
    """The artifacts that one job may read.

    A job without a customer belongs to whoever runs the installation, and reads whatever is in the store. A job with one
    reads what its customer's jobs have put out, as their results say, and what was uploaded for this customer. Its own
    store (``ctx.storage``) it reads as it likes: whoever submitted it had the credentials.

    Args:
        stores: gives the worker's stores, the default one first.
        own: the job's own store, if it has one.
        facts_of: reads what is known of another job; None: no such job is known any more.
    """

    job: Job
    stores: Callable[[], Iterable[ArtifactStore]]
    facts_of: Callable[[str], Awaitable[JobFacts | None]]
    own: ArtifactStore | None = None

    async def open(self, at: str) -> Source:
        """A file of a store.

        Args:
            at: its key, or its URL as a result tells it.

        Raises:
            InputError: it is not there, or this job may not read it: that is not told apart.
        """
        for store in self._searched():
            found = await find_artifact(store, at)
            if found is not None and (store is self.own or await self._may_read(found)):
                return Source(
                    store.open(found.key),
                    name=own_name(found.key),
                    media_type=found.media_type or None,
                    size_bytes=found.size_bytes,
                )
        raise InputError(
            "the artifact store has no such file for this job",
            hint="give the artifact's key, or its URL as the result of a job of the same customer tells it",
            details={"reason": "artifact_not_found"},
        )

    def _searched(self) -> Iterator[ArtifactStore]:
        if self.own is not None:
            yield self.own
        yield from self.stores()

    async def _may_read(self, found: StoredObject) -> bool:
        customer = self.job.customer_id
        if customer is None:
            return True
        folders = found.key.split("/")[:-1]
        if folders[:2] == [UPLOADS, _owner(customer)]:
            return True
        for folder in folders:
            if is_job_id(folder):
                facts = await self.facts_of(folder)
                # By what its worker wrote into the result: anybody can give a job an id that is a folder's name.
                if facts is not None and facts.customer_id == customer and found.url in facts.urls:
                    return True
        return False


def upload_key(customer_id: str | None, sha256: str, name: str) -> str:
    """The key of a file that a submitter puts into the store for a job: the same for the same file of the same customer.

    Raises:
        UnsafeName: the name tries to leave its folder.
    """
    return f"{UPLOADS}/{_owner(customer_id)}/{sha256[:32]}/{safe_key(name)}"


def _owner(customer_id: str | None) -> str:
    """A customer as a folder's name: not every character of an id may stand in one."""
    return "nobody" if customer_id is None else hashlib.sha256(customer_id.encode()).hexdigest()[:32]


async def find_artifact(store: ArtifactStore, at: str) -> StoredObject | None:
    """What a store knows of a file, by its key or by the URL that the store gives it; None: it has no such file."""
    is_url = "://" in at
    for key in _keys_in(at) if is_url else (at,):
        try:
            found = await store.stat(key)
        except (ArtifactNotFound, UnsafeName):
            continue
        if not is_url or found.url == at:
            return found
    return None


def _keys_in(url: str) -> Iterator[str]:
    """What the key may be in a store's URL: its end, of two steps or more. The store says which one it is."""
    try:
        steps = unquote(urlsplit(url).path).strip("/").split("/")
    except ValueError:
        return
    for count in range(2, min(len(steps), _SEGMENTS_MAX) + 1):
        yield "/".join(steps[-count:])

"""`InputTaking`: all that a worker needs to take the files that jobs refer to."""

from collections.abc import Awaitable, Callable, Iterable
from itertools import chain

from attrs import define

from emp_core.config import Settings
from emp_core.inputs.artifacts import ArtifactFiles, JobFacts
from emp_core.inputs.fetching import JobInputs
from emp_core.inputs.folder import WorkFolders
from emp_core.inputs.paths import LocalFiles
from emp_core.inputs.web import WebFiles
from emp_core.jobs.model import Job
from emp_core.network.guard import Guard
from emp_core.storage.interface import ArtifactStore

__all__ = ["InputTaking"]


async def _nothing_known(_job_id: str) -> JobFacts | None:
    return None


@define(eq=False)
class InputTaking:
    """Takes the files of all jobs of one worker: within its limits, from where its operator allows it.

    Args:
        max_bytes: what all files of an attempt together may have.
        store: the worker's default artifact store.
        named: gives its further ones, in which an artifact may be, too.
        facts_of: reads what is known of another job, to tell whose its artifacts are.
    """

    web: WebFiles
    paths: LocalFiles
    folders: WorkFolders
    store: ArtifactStore
    max_bytes: int
    facts_of: Callable[[str], Awaitable[JobFacts | None]] = _nothing_known
    named: Callable[[], Iterable[ArtifactStore]] = tuple

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        *,
        store: ArtifactStore,
        facts_of: Callable[[str], Awaitable[JobFacts | None]] = _nothing_known,
        named: Callable[[], Iterable[ArtifactStore]] = tuple,
    ) -> "InputTaking":
        """As the settings say.

        Raises:
            ConfigError: ``EMP_PRIVATE_HOSTS`` or ``EMP_INPUT_FOLDERS`` cannot be used.
        """
        return cls(
            web=WebFiles(Guard(settings.private_hosts), limit_s=settings.input_timeout_s),
            paths=LocalFiles(settings.input_folders),
            folders=WorkFolders(settings.data_dir / "inputs"),
            store=store,
            max_bytes=settings.input_max_bytes,
            facts_of=facts_of,
            named=named,
        )

    def of(self, job: Job, *, own_store: ArtifactStore | None = None) -> JobInputs:
        """The files of one attempt. Whoever asks closes it when the attempt is over.

        Args:
            own_store: the store that the job brought with it.
        """
        return JobInputs(self, job, own_store)

    def artifacts_of(self, job: Job, own_store: ArtifactStore | None) -> ArtifactFiles:
        """The artifacts that a job may read."""
        return ArtifactFiles(job, lambda: chain((self.store,), self.named()), self.facts_of, own_store)

    async def aclose(self) -> None:
        """Remove what is left. Attempts must be over."""
        await self.folders.aclose()

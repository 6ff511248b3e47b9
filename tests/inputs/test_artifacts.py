"""Artifacts as inputs: by key or URL, and only those that the job's customer may read."""

from pathlib import Path

import pytest

from emp_core.errors import InputError
from emp_core.inputs.artifacts import ArtifactFiles, JobFacts, upload_key
from emp_core.inputs.taking import InputTaking
from emp_core.storage.local import LocalStore

from .sources import PNG, attempt, job, ref, taking

KEY = "renders/job-a/1-0-cat.png"


class Jobs:
    """What is known of other jobs."""

    def __init__(self) -> None:
        self.known: dict[str, JobFacts] = {}

    async def __call__(self, job_id: str) -> JobFacts | None:
        return self.known.get(job_id)


@pytest.fixture
def jobs() -> Jobs:
    return Jobs()


@pytest.fixture
def ready(tmp_path: Path, jobs: Jobs) -> InputTaking:
    made = taking(tmp_path)
    made.facts_of = jobs
    return made


async def put(store: LocalStore, key: str = KEY) -> str:
    return (await store.put(key, PNG, media_type="image/png")).url


@pytest.fixture
def store(ready: InputTaking) -> LocalStore:
    assert isinstance(ready.store, LocalStore)
    return ready.store


async def test_an_artifact_is_found_by_its_key_and_by_its_url(ready: InputTaking, store: LocalStore) -> None:
    url = await put(store)
    async with attempt(ready, job()) as inputs:
        for at in (KEY, url):
            found = await inputs.fetch(ref(artifact=at))
            assert (found.name, found.media_type, await found.read()) == ("cat.png", "image/png", PNG)


@pytest.mark.parametrize(
    "at",
    [
        "renders/job-a/1-1-dog.png",
        "../secret",
        "/etc/passwd",
        "file:///etc/passwd",
        f"https://elsewhere.example/{KEY}",
        "http://[",
        "renders",
    ],
)
async def test_what_is_not_in_the_store_is_no_artifact(ready: InputTaking, store: LocalStore, at: str) -> None:
    await put(store)
    async with attempt(ready, job()) as inputs:
        with pytest.raises(InputError, match="no such file for this job") as caught:
            await inputs.fetch(ref(artifact=at))
    assert caught.value.details["reason"] == "artifact_not_found"


async def test_a_customers_job_reads_what_its_own_jobs_have_put_out(
    ready: InputTaking, store: LocalStore, jobs: Jobs
) -> None:
    jobs.known["job-a"] = JobFacts("alice", {await put(store)})
    async with attempt(ready, job("job-b", customer="alice")) as inputs:
        assert await (await inputs.fetch(ref(artifact=KEY))).read() == PNG


@pytest.mark.parametrize("owner", ["bob", None])
async def test_a_customers_job_reads_nobody_elses(
    ready: InputTaking, store: LocalStore, jobs: Jobs, owner: str | None
) -> None:
    url = await put(store)
    jobs.known["job-a"] = JobFacts(owner, {url})
    async with attempt(ready, job("job-b", customer="alice")) as inputs:
        for at in (KEY, url):
            with pytest.raises(InputError, match="no such file for this job"):
                await inputs.fetch(ref(artifact=at))


async def test_what_no_result_names_is_not_read_for_a_customer(
    ready: InputTaking, store: LocalStore, jobs: Jobs
) -> None:
    await put(store)
    async with attempt(ready, job("job-b", customer="alice")) as inputs:
        with pytest.raises(InputError):
            await inputs.fetch(ref(artifact=KEY))
        # A job that took the name of a folder for its id.
        jobs.known["renders"] = JobFacts("alice", {"file:///something/else"})
        with pytest.raises(InputError):
            await inputs.fetch(ref(artifact=KEY))


async def test_uploads_are_read_by_the_customer_they_were_made_for(ready: InputTaking, store: LocalStore) -> None:
    keys = {customer: upload_key(customer, "a" * 64, "cat.png") for customer in ("alice", "bob", None)}
    for key in keys.values():
        await put(store, key)
    async with attempt(ready, job(customer="alice")) as inputs:
        assert (await inputs.fetch(ref(artifact=keys["alice"]))).name == "cat.png"
        for other in ("bob", None):
            with pytest.raises(InputError):
                await inputs.fetch(ref(artifact=keys[other]))
    async with attempt(ready, job()) as inputs:
        for key in keys.values():
            assert await (await inputs.fetch(ref(artifact=key))).read() == PNG


async def test_artifacts_of_all_stores_of_the_worker_are_found(
    ready: InputTaking, store: LocalStore, jobs: Jobs, tmp_path: Path
) -> None:
    final = LocalStore(tmp_path / "final")
    ready.named = lambda: (final,)
    url = await put(final)
    jobs.known["job-a"] = JobFacts("alice", {url})
    for customer in (None, "alice"):
        async with attempt(ready, job(customer=customer)) as inputs:
            for at in (KEY, url):
                assert await (await inputs.fetch(ref(artifact=at))).read() == PNG
    async with attempt(ready, job(customer="bob")) as inputs:
        with pytest.raises(InputError, match="no such file for this job"):
            await inputs.fetch(ref(artifact=url))


async def test_a_job_reads_its_own_store_as_it_likes(ready: InputTaking, tmp_path: Path) -> None:
    own = LocalStore(tmp_path / "own")
    url = await put(own, "in/cat.png")
    async with attempt(ready, job(customer="alice"), own_store=own) as inputs:
        for at in ("in/cat.png", url):
            assert await (await inputs.fetch(ref(artifact=at))).read() == PNG


async def test_an_upload_is_stored_under_the_same_key_again() -> None:
    assert upload_key("alice", "a" * 64, "cat.png") == upload_key("alice", "a" * 64, "cat.png")
    assert upload_key("alice", "a" * 64, "cat.png") != upload_key("bob", "a" * 64, "cat.png")
    assert "alice" not in upload_key("alice", "a" * 64, "cat.png")


async def test_an_artifact_is_opened_where_it_lies(store: LocalStore, jobs: Jobs) -> None:
    await put(store)
    source = await ArtifactFiles(job(), lambda: (store,), jobs).open(KEY)
    assert (source.name, source.media_type, source.size_bytes) == ("cat.png", "image/png", len(PNG))
    assert b"".join([chunk async for chunk in source.chunks]) == PNG

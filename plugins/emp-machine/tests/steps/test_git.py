"""A repository is checked out as it was asked for, and found so."""

from pathlib import Path

import pytest
from emp_machine.steps import GitCheckout

from emp_core.errors import InstallError


async def checked_out(url: str, folder: Path, ref: str, telling):
    step = GitCheckout("get it", url, folder, ref)
    assert not await step.is_done()
    await step.do(telling)
    assert await step.is_done()
    return step


async def test_a_branch_stays_at_the_commit_that_it_had(repository, telling, tmp_path):
    first = repository.commit(main_py="1")
    step = await checked_out(repository.url, tmp_path / "it", "main", telling)
    repository.commit(main_py="2")
    assert await step.is_done()
    assert await step.commit() == first
    assert telling.pins == {repository.url: first}


async def test_done_again_it_goes_to_the_branchs_newest_commit(repository, telling, tmp_path):
    repository.commit(main_py="1")
    step = await checked_out(repository.url, tmp_path / "it", "main", telling)
    newest = repository.commit(main_py="2")
    await step.do(telling)
    assert await step.commit() == newest
    assert (tmp_path / "it" / "main.py").read_text() == "2"


@pytest.mark.parametrize("kind", ["tag", "commit", "branch"])
async def test_tags_commits_and_branches_are_understood(repository, telling, tmp_path, kind):
    wanted = repository.commit(main_py="old")
    repository.git("tag", "v1")
    repository.git("branch", "other/one")
    repository.commit(main_py="new")
    ref = {"tag": "v1", "commit": wanted, "branch": "other/one"}[kind]
    step = await checked_out(repository.url, tmp_path / "it", ref, telling)
    assert await step.commit() == wanted
    assert (tmp_path / "it" / "main.py").read_text() == "old"


async def test_another_ref_or_address_is_not_done(repository, telling, tmp_path):
    repository.commit(main_py="1")
    await checked_out(repository.url, tmp_path / "it", "main", telling)
    assert not await GitCheckout("get it", repository.url, tmp_path / "it", "v2").is_done()
    assert not await GitCheckout("get it", repository.url + "2", tmp_path / "it", "main").is_done()


async def test_files_that_are_missing_come_back_and_those_of_others_stay(repository, telling, tmp_path):
    repository.commit(main_py="1", models__README_txt="put models here")
    step = await checked_out(repository.url, tmp_path / "it", "main", telling)
    model = tmp_path / "it" / "models" / "one.safetensors"
    model.write_text("mine")
    (tmp_path / "it" / "main.py").unlink()
    assert not await step.is_done()
    await step.do(telling)
    assert (tmp_path / "it" / "main.py").read_text() == "1"
    assert model.read_text() == "mine"


async def test_a_folder_that_holds_files_already_is_no_hindrance(repository, telling, tmp_path):
    repository.commit(main_py="1")
    (tmp_path / "it" / "models").mkdir(parents=True)
    (tmp_path / "it" / "models" / "one").write_text("a volume of models")
    await checked_out(repository.url, tmp_path / "it", "main", telling)
    assert (tmp_path / "it" / "models" / "one").read_text() == "a volume of models"


async def test_locks_of_a_git_that_was_killed_are_no_hindrance(repository, telling, tmp_path):
    repository.commit(main_py="1")
    step = await checked_out(repository.url, tmp_path / "it", "main", telling)
    (tmp_path / "it" / "main.py").unlink()
    (tmp_path / "it" / ".git" / "index.lock").touch()
    (tmp_path / "it" / ".git" / "config.lock").touch()
    await step.do(telling)
    assert await step.is_done()


async def test_a_ref_that_does_not_exist_is_named(repository, telling, tmp_path):
    repository.commit(main_py="1")
    with pytest.raises(InstallError, match="has no branch or tag 'no-such'") as caught:
        await GitCheckout("get it", repository.url, tmp_path / "it", "no-such").do(telling)
    assert "ls-remote" in (caught.value.hint or "")


async def test_a_login_in_an_address_is_not_told(telling, tmp_path, monkeypatch):
    async def refuse(self, argv, **how):
        raise InstallError("git ended with 128", details={"output": ["fatal: couldn't find remote ref none"]})

    monkeypatch.setattr(type(telling), "run", refuse)
    with pytest.raises(InstallError, match="has no branch or tag 'none'") as caught:
        await GitCheckout("get it", "https://me:hunter2@host/it.git", tmp_path / "it", "none").do(telling)
    assert "hunter2" not in str(caught.value)


async def test_a_ref_is_no_option_of_git(repository, telling, tmp_path):
    repository.commit(main_py="1")
    with pytest.raises(InstallError):
        await GitCheckout("get it", repository.url, tmp_path / "it", "--upload-pack=touch pwned").do(telling)
    assert not list(tmp_path.rglob("pwned"))

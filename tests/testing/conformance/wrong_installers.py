"""Installers that are wrong in one way each. ``breaks`` names the rules that have to say so."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from anyio.to_thread import run_sync

from emp_core import Step, StepContext
from emp_core.testing.conformance.installer import InstallerConformance, MakeInstaller

from .notes import FILES, CopyFile, MakeIndex, NotesInstaller, make_source, notes_config


class NotesConformance(InstallerConformance):
    """The suite for a kind of `NotesInstaller`."""

    installer_class: ClassVar[type[NotesInstaller]] = NotesInstaller
    essential: ClassVar[Sequence[str]] = (*FILES, "index.txt", "data")

    @pytest.fixture
    def make_installer(self, tmp_path: Path) -> MakeInstaller:
        source = make_source(tmp_path / "source")
        return lambda folder: self.installer_class(notes_config(source), folder)

    @pytest.fixture
    def make_failing_installer(self, tmp_path: Path) -> MakeInstaller:
        source = make_source(tmp_path / "damaged")
        (source / "data/first.txt").unlink()
        return lambda folder: self.installer_class(notes_config(source), folder)


class Notes(NotesInstaller):
    """Takes other steps."""

    copy: ClassVar[type[CopyFile]] = CopyFile
    index: ClassVar[type[MakeIndex]] = MakeIndex

    def steps(self) -> Sequence[Step]:
        source = Path(self.config.options["installer_config"]["source"])
        return (*(self.copy(source / name, self.folder / name) for name in FILES), self.index(self.folder))


class NamelessIndex(MakeIndex):
    name = " "


class Nameless(Notes):
    breaks: ClassVar = {"test_every_step_has_a_name_of_its_own"}
    index: ClassVar = NamelessIndex


class SilentCopy(CopyFile):
    def commands(self) -> Sequence[str]:
        return ()


class Silent(Notes):
    """Does not say what it does."""

    breaks: ClassVar = {"test_a_dry_run_tells_every_step_and_touches_nothing"}
    copy: ClassVar = SilentCopy


class RoughIndex(MakeIndex):
    def commands(self) -> Sequence[str]:
        return ("make the index, somehow",)


class Rough(Notes):
    """Says only roughly what it does."""

    breaks: ClassVar = {"test_every_command_that_is_run_was_told_by_the_dry_run"}
    index: ClassVar = RoughIndex


class FloatingCopy(CopyFile):
    async def do(self, context: StepContext) -> None:
        await super().do(context)
        context.fetched("https://notes.example/notes.git", "main")


class Floating(Notes):
    """Fetches whatever is newest."""

    breaks: ClassVar = {"test_what_is_fetched_is_pinned"}
    copy: ClassVar = FloatingCopy


class Content(Notes):
    """Finds nothing wrong where nothing is installed."""

    breaks: ClassVar = {"test_it_installs_what_it_verifies"}

    async def verify(self) -> None:
        if await run_sync(self.folder.exists):
            await super().verify()


class SpillingIndex(MakeIndex):
    async def do(self, context: StepContext) -> None:
        await super().do(context)
        await run_sync((self.index.parent.parent / "notes.lock").write_text, "installed")


class Spilling(Notes):
    """Writes a file beside its folder."""

    breaks: ClassVar = {"test_nothing_outside_of_its_folder_is_changed"}
    index: ClassVar = SpillingIndex


class Stamping(Notes):
    """Notes each look at it."""

    breaks: ClassVar = {"test_a_second_run_changes_nothing", "test_looking_changes_nothing"}

    async def verify(self) -> None:
        await super().verify()
        stamp = self.folder / "looks.txt"
        await run_sync(stamp.write_text, "looked at")
        await run_sync(stamp.unlink)


class PreparingCopy(CopyFile):
    async def is_done(self) -> bool:
        await run_sync(lambda: self.target.parent.mkdir(parents=True, exist_ok=True))
        return await super().is_done()


class Preparing(Notes):
    """Makes folders while it looks."""

    breaks: ClassVar = {"test_looking_changes_nothing"}
    copy: ClassVar = PreparingCopy


class AddingIndex(MakeIndex):
    async def do(self, context: StepContext) -> None:
        before = await run_sync(self.index.read_text) if await run_sync(self.index.is_file) else ""
        await super().do(context)
        await run_sync(self.index.write_text, before + await run_sync(self.index.read_text))


class Adding(Notes):
    """Writes below what is there."""

    breaks: ClassVar = {"test_installing_again_ends_in_the_same_state"}
    index: ClassVar = AddingIndex


class TrustingCopy(CopyFile):
    async def is_done(self) -> bool:
        return await run_sync(self.target.is_file)

    async def do(self, context: StepContext) -> None:
        data = await run_sync(self.read)
        await run_sync(lambda: self.target.parent.mkdir(parents=True, exist_ok=True))
        for end in range(64, len(data) + 64, 64):
            await run_sync(self.target.write_bytes, data[:end])
            context.progress(end / len(data))
        context.fetched(self.target.name, hashlib.sha256(data).hexdigest())


class Trusting(Notes):
    """Takes half a file for a whole one."""

    breaks: ClassVar = {"test_killed_anywhere_and_continued_it_ends_in_the_same_state"}
    copy: ClassVar = TrustingCopy


class RawCopy(CopyFile):
    async def do(self, context: StepContext) -> None:
        await run_sync(self.source.read_bytes)
        await super().do(context)


class Raw(Notes):
    """Lets the error of a file that is missing through."""

    breaks: ClassVar = {"test_a_step_that_fails_is_named_and_is_the_last"}
    copy: ClassVar = RawCopy


class ShortSighted(Notes):
    """Does not look at all that is needed."""

    breaks: ClassVar = {"test_a_damaged_installation_is_found_and_mended"}

    async def verify(self) -> None:
        if not await run_sync((self.folder / FILES[0]).is_file):
            await super().verify()

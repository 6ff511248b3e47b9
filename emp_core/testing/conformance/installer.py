"""`InstallerConformance`: what every installer keeps to."""

import os
import signal
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import anyio
import pytest

from emp_core.errors import InstallError
from emp_core.services.installer import Installer, InstallEvent, InstallEventKind
from emp_core.services.installing import dry_run, install
from emp_core.testing.conformance.folders import Contents, contents_of, differences, remove, snapshot_of

__all__ = ["InstallerConformance", "MakeInstaller"]

MakeInstaller = Callable[[Path], Installer]
"""Makes an installer for a folder, which need not be there."""

_KILLED = -signal.SIGKILL
_FLOATING = frozenset({"", "main", "master", "head", "latest", "stable", "nightly", "develop", "dev", "*"})


class InstallerConformance:
    """The rules of `Installer`. A subclass gives the fixture ``make_installer``::

        class TestNotesInstaller(InstallerConformance):
            @pytest.fixture
            def make_installer(self, source):
                return lambda folder: NotesInstaller(ServiceConfig("notes", os.environ, {"source": source}), folder)

    What it installs should come from this machine: local repositories, a file server that the test starts.

    Attributes:
        kills: at how many points an installation is killed; all points, if there are no more.
        essential: files or folders, relative to the service's folder, without which `verify` has to fail.
        ignored: patterns of paths whose contents may differ from one installation to the next: logs, caches.

    Fixture that it may give: ``make_failing_installer``, as ``make_installer``, for one whose source is broken, so that one
    of its steps fails.
    """

    kills: ClassVar[int] = 10
    essential: ClassVar[Sequence[str]] = ()
    ignored: ClassVar[Sequence[str]] = ()

    @pytest.fixture
    def make_installer(self) -> MakeInstaller:
        """The subclass's: makes an installer for a folder."""
        raise NotImplementedError("give the fixture make_installer: a function of a folder that makes your installer")

    @pytest.fixture
    def make_failing_installer(self) -> MakeInstaller:
        """The subclass's, if it can: makes an installer one of whose steps fails."""
        pytest.skip("give the fixture make_failing_installer: an installer whose source is missing or damaged")

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        """Where services are installed, each in a folder of its own."""
        place = tmp_path / "services"
        place.mkdir()
        return place

    # What it says.

    def test_every_step_has_a_name_of_its_own(self, make_installer: MakeInstaller, place: Path) -> None:
        names = [[step.name for step in make_installer(place / "one").steps()] for _ in range(2)]
        assert names[0], "an installer has one step at least"
        assert names[0] == names[1], "the names of the steps change from one time to the next"
        assert all(name.strip() for name in names[0]), "a step has a name"
        assert len(set(names[0])) == len(names[0]), f"two steps have the same name: {', '.join(names[0])}"

    def test_a_dry_run_tells_every_step_and_touches_nothing(self, make_installer: MakeInstaller, place: Path) -> None:
        for installed in (False, True):
            if installed:
                done(make_installer(place / "one"))
            before = snapshot_of(place)
            lines = list(dry_run(make_installer(place / "one")))
            assert snapshot_of(place) == before, "a dry run changed something"
            for step in make_installer(place / "one").steps():
                assert f"# {step.name}" in lines, f"the dry run does not name the step {step.name!r}"
                assert any(line.strip() for line in step.commands()), (
                    f"the step {step.name!r} does not say what it does"
                )

    def test_every_command_that_is_run_was_told_by_the_dry_run(
        self, make_installer: MakeInstaller, place: Path
    ) -> None:
        installer = make_installer(place / "one")
        told = {step.name: set(step.commands()) for step in installer.steps()}
        for event in done(installer):
            if event.kind is InstallEventKind.COMMAND:
                assert event.text in told[event.step], f"the dry run does not tell `{event.text}` of {event.step!r}"

    def test_what_is_fetched_is_pinned(self, make_installer: MakeInstaller, place: Path) -> None:
        for event in done(make_installer(place / "one")):
            if event.kind is InstallEventKind.FETCHED:
                assert event.text.strip(), f"the step {event.step!r} fetches something and does not say what"
                assert event.pin.lower() not in _FLOATING, f"{event.text} is pinned to {event.pin!r}, which moves"

    # What it does.

    def test_it_installs_what_it_verifies(self, make_installer: MakeInstaller, place: Path) -> None:
        installer = make_installer(place / "one")
        with pytest.raises(InstallError):
            anyio.run(installer.verify)
        assert not anyio.run(all_done, installer), "all steps are done before anything was installed"
        events = done(installer)
        assert anyio.run(all_done, make_installer(place / "one")), "a step was done and says that it is not"
        begun = [event.step for event in events if event.kind is InstallEventKind.BEGUN]
        assert begun == [step.name for step in installer.steps()], "steps that were not done were left out"
        anyio.run(make_installer(place / "one").verify)

    def test_nothing_outside_of_its_folder_is_changed(self, make_installer: MakeInstaller, place: Path) -> None:
        (place / "neighbour").mkdir()
        (place / "neighbour" / "file.txt").write_text("mine")
        before = snapshot_of(place.parent, without=[place / "one"])
        done(make_installer(place / "one"))
        after = snapshot_of(place.parent, without=[place / "one"])
        assert after == before, f"something outside of the folder was changed: {before.differences(after)}"

    def test_a_second_run_changes_nothing(self, make_installer: MakeInstaller, place: Path) -> None:
        done(make_installer(place / "one"))
        before = snapshot_of(place / "one")
        events = done(make_installer(place / "one"))
        kinds = {event.kind for event in events}
        assert kinds <= {InstallEventKind.SKIPPED, InstallEventKind.VERIFIED}, f"a second run does something: {kinds}"
        after = snapshot_of(place / "one")
        assert after == before, f"a second run changed something: {before.differences(after)}"

    def test_looking_changes_nothing(self, make_installer: MakeInstaller, place: Path) -> None:
        for installed in (False, True):
            if installed:
                done(make_installer(place / "one"))
            before = snapshot_of(place)
            installer = make_installer(place / "one")
            anyio.run(all_done, installer)
            if installed:
                anyio.run(installer.verify)
            after = snapshot_of(place)
            assert after == before, f"asking whether it is installed changed something: {before.differences(after)}"

    def test_installing_again_ends_in_the_same_state(self, make_installer: MakeInstaller, place: Path) -> None:
        done(make_installer(place / "one"))
        before = self._contents(place / "one")
        anyio.run(lambda: install(make_installer(place / "one"), again=True))
        assert self._contents(place / "one") == before, "installing again, step by step, ends in another state"

    # Trouble.

    def test_killed_anywhere_and_continued_it_ends_in_the_same_state(
        self, make_installer: MakeInstaller, place: Path
    ) -> None:
        points = len(done(make_installer(place / "whole")))
        expected = self._contents(place / "whole")
        for point in spread(points, self.kills):
            folder = place / f"killed-{point}"
            status = kill_at(point, make_installer(folder))
            assert status in (0, _KILLED), f"an installation that was to be killed ended with {status}"
            done(make_installer(folder))
            found = self._contents(folder)
            assert found == expected, (
                f"killed at point {point} of {points} and continued, it ends in another state: "
                f"{differences(expected, found)}"
            )

    def test_a_step_that_fails_is_named_and_is_the_last(
        self, make_failing_installer: MakeInstaller, make_installer: MakeInstaller, place: Path
    ) -> None:
        events: list[InstallEvent] = []
        installer = make_failing_installer(place / "one")
        try:
            anyio.run(install, installer, events.append)
        except InstallError as error:
            told = error
        else:
            pytest.fail("the installer of make_failing_installer does not fail")
        names = [step.name for step in installer.steps()]
        step = told.details.get("step")
        assert step in names, f"the error names no step: {told}"
        assert told.details.get("cause") == InstallError.code, f"a raw {told.details.get('cause')} came out of {step!r}"
        assert told.message.strip(), "the error says nothing"
        begun = [event.step for event in events if event.kind is InstallEventKind.BEGUN]
        assert begun[-1:] == [step], "the step that failed is not the last that was begun"
        done(make_installer(place / "one"))
        done(make_installer(place / "fresh"))
        assert self._contents(place / "one") == self._contents(place / "fresh"), (
            "continued after a failure, it ends in another state"
        )

    def test_a_damaged_installation_is_found_and_mended(self, make_installer: MakeInstaller, place: Path) -> None:
        if not self.essential:
            pytest.skip("give essential: files or folders without which the service cannot work")
        done(make_installer(place / "one"))
        expected = self._contents(place / "one")
        for path in self.essential:
            remove(place / "one" / path)
            try:
                anyio.run(make_installer(place / "one").verify)
            except InstallError:
                done(make_installer(place / "one"))
            else:
                pytest.fail(f"verify finds nothing wrong without {path}")
            assert self._contents(place / "one") == expected, f"without {path}, installing does not mend it"

    def _contents(self, folder: Path) -> Contents:
        return contents_of(folder, ignored=self.ignored)


def done(installer: Installer) -> list[InstallEvent]:
    """Install, and give what was told of it."""
    events: list[InstallEvent] = []
    anyio.run(install, installer, events.append)
    return events


async def all_done(installer: Installer) -> bool:
    """Whether every step says that it is done."""
    return all([await step.is_done() for step in installer.steps()])


def kill_at(point: int, installer: Installer) -> int:
    """Install in another process, which ends as by ``kill -9`` when so many things were told; gives how it ended."""

    def tell(_event: InstallEvent) -> None:
        nonlocal point
        point -= 1
        if point < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads: the child uses none of them
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        anyio.run(install, installer, tell)
    except BaseException:
        os._exit(70)
    os._exit(0)


def spread(points: int, most: int) -> list[int]:
    """At most so many of the numbers from 0 to ``points`` - 1, evenly."""
    if points <= most:
        return list(range(points))
    return sorted({round(number * (points - 1) / (most - 1)) for number in range(most)})

"""A small real installer keeps to what is asked of every installer."""

from pathlib import Path

import pytest

from emp_core.testing.conformance.installer import InstallerConformance, MakeInstaller

from .notes import FILES, NotesInstaller, make_source, notes_config


class TestNotesInstaller(InstallerConformance):
    essential = (*FILES, "index.txt", "data")

    @pytest.fixture
    def make_installer(self, tmp_path: Path) -> MakeInstaller:
        source = make_source(tmp_path / "source")
        return lambda folder: NotesInstaller(notes_config(source), folder)

    @pytest.fixture
    def make_failing_installer(self, tmp_path: Path) -> MakeInstaller:
        source = make_source(tmp_path / "damaged")
        (source / "data/first.txt").unlink()
        return lambda folder: NotesInstaller(notes_config(source), folder)

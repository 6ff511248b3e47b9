"""What tests of the machine layer share: repositories, a file server, and a step's context that notes what it is told."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from emp_machine.testing.file_server import FileServer, file_server
from emp_machine.testing.repositories import Repository, new_repository

from .telling import Telling


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return new_repository(tmp_path / "origin")


@pytest.fixture
def files() -> Iterator[FileServer]:
    with file_server() as server:
        yield server


@pytest.fixture
def telling() -> Telling:
    return Telling()

"""Machines whose workers are looked after."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from emp_machine.processes.choosing import find_pm2

from .echoes import NO_PM2, EchoMachine


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, redis_url: str) -> Iterator[EchoMachine]:
    """A machine that nobody holds, for all tests of a module; each brings its workers to where it wants them."""
    made = EchoMachine(tmp_path_factory.mktemp("box"), redis_url, f"{{wgpu-{secrets.token_hex(6)}}}:")
    yield made
    made.end()


@pytest.fixture(params=["supervisor", "pm2"])
def either(request: pytest.FixtureRequest, tmp_path: Path, redis_url: str, namespace: str) -> Iterator[EchoMachine]:
    """A machine of this test's own, kept by the one and by the other."""
    if request.param == "pm2" and find_pm2(os.environ) is None:
        pytest.skip(NO_PM2)
    made = EchoMachine(tmp_path, redis_url, namespace, request.param)
    yield made
    made.end()

"""For all tests of this repository."""

import pytest

pytest_plugins = ["pytester"]  # for the tests of the fixtures that emp-core ships


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """asyncio: redis-py does not run on anything else."""
    return "asyncio"

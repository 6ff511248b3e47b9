import pytest


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Workers run on asyncio."""
    return "asyncio"

import pytest

from emp_core.queue.queue import JobQueue

from .hands import Hands


@pytest.fixture
def hands(queue: JobQueue) -> Hands:
    """Makes workers that are worked by hand."""
    return Hands(queue)

"""The connector keeps to what emp-core asks of every connector."""

from collections.abc import AsyncIterator, Mapping

import pytest
from emp_core.testing.conformance.connector import ConnectorConformance
from fake_shout import KEY, FakeShout

from emp_shout.connector import ShoutConnector


class TestShoutConnector(ConnectorConformance):
    connector_class = ShoutConnector
    payloads = ({"text": "hello"}, {"text": "world", "times": 2})
    bad_payloads = ({}, {"text": ""}, {"text": 7}, {"text": "hello", "times": "2"}, {"text": "hello", "loud": True})
    secrets = (KEY,)

    def environ(self, url: str) -> Mapping[str, str]:
        return {"SHOUT_URL": url, "SHOUT_API_KEY": KEY}

    @pytest.fixture
    async def service(self) -> AsyncIterator[FakeShout]:
        async with FakeShout() as service:
            yield service

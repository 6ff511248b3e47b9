"""The connector keeps to what every connector keeps to."""

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from emp_ollama.connector import OllamaConnector
from emp_ollama.several import OllamaHostsConnector
from emp_ollama.testing import FakeOllama

from emp_core.testing.conformance.connector import ConnectorConformance


class OllamaConformance(ConnectorConformance):
    payloads = (
        {"model": "tiny-chat", "prompt": "count"},
        {"model": "tiny-chat", "messages": [{"role": "user", "content": "think"}]},
        {"model": "tiny-embed", "input": ["a", "b"]},
    )
    bad_payloads = (
        {"model": "tiny-chat", "prompt": "x", "messages": []},
        {"model": "tiny-chat", "prompt": 5},
        {"prompt": "no model"},
    )
    secrets = ("sk-very-secret",)

    @pytest.fixture
    async def service(self) -> AsyncIterator[Any]:
        async with FakeOllama(api_key="sk-very-secret", slots=4) as server:
            yield server


class TestOllamaConnector(OllamaConformance):
    connector_class = OllamaConnector

    def environ(self, url: str) -> Mapping[str, str]:
        return {"OLLAMA_HOST": url, "OLLAMA_API_KEY": "sk-very-secret"}


class TestOllamaHostsConnector(OllamaConformance):
    connector_class = OllamaHostsConnector

    def environ(self, url: str) -> Mapping[str, str]:
        host = {"name": "only", "host": url, "api_key": "sk-very-secret", "slots": 4}
        return {"EMP_OLLAMA_HOSTS": json.dumps([host])}

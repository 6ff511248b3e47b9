"""The connector keeps to what every connector keeps to."""

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import pytest
from emp_openai.connector import OpenAIConnector
from emp_openai.testing import FakeOpenAI

from emp_core.testing.conformance.connector import ConnectorConformance
from emp_core.testing.conformance.rig import Rig, RunningJob


class OpenAIConformance(ConnectorConformance):
    connector_class = OpenAIConnector
    secrets = ("sk-very-secret",)
    more: ClassVar[Mapping[str, str]] = {}

    def environ(self, url: str) -> Mapping[str, str]:
        return {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": "sk-very-secret",
            "EMP_OPENAI_POLL_S": "0.05",
            **self.more,
        }

    async def fingerprint(self, rig: Rig, job: RunningJob) -> Any:
        told = await rig.fingerprint(job)
        told["data"].pop("id", None)
        told["data"].pop("images", None)
        return told

    @pytest.fixture
    async def service(self) -> AsyncIterator[Any]:
        async with FakeOpenAI(api_key="sk-very-secret") as server:
            yield server


class TestChatsPicturesAndVectors(OpenAIConformance):
    payloads = (
        {"model": "fake", "messages": [{"role": "user", "content": "count"}]},
        {"model": "fake", "prompt": "a cat", "partial_images": 2},
        {"model": "fake", "task": "embeddings", "input": ["a", "b"]},
    )
    bad_payloads = (
        {"model": "fake"},
        {"messages": [{"role": "user", "content": "no model"}]},
        {"model": "fake", "task": "edits", "prompt": "no picture"},
    )


class TestResponses(OpenAIConformance):
    payloads = ({"model": "fake", "input": "count"}, {"model": "fake", "input": "hello"})


class TestResponsesThatMayBeSentAgain(TestResponses):
    more: ClassVar[Mapping[str, str]] = {"EMP_OPENAI_RESEND": "true"}

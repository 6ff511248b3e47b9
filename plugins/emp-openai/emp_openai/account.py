"""`Account`: one key or deployment, and what is said there."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector, Reply
from emp_core.connectors.streams import ServerSentEvent, server_sent_events
from emp_core.errors import ConnectionLost, EmpError, JobFailed, NotRepeated, ServiceUnavailable
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_openai.errors import error_of_answer
from emp_openai.limits import rest_s
from emp_openai.payloads import Task
from emp_openai.prices import Prices
from emp_openai.settings import AccountConfig, OpenAISettings
from emp_openai.tasks import run_task

__all__ = ["Account", "Answer"]

_EVENT_STREAM = "text/event-stream"


class Answer:
    """An answer that began well: its events as they come, or its whole body.

    Attributes:
        paid: whether anything of it came: from then on it may have cost something.
    """

    def __init__(self, account: "Account", response: httpx.Response) -> None:
        self._account = account
        self._response = response
        self.paid = False

    @property
    def is_stream(self) -> bool:
        """Whether it comes as events. Some servers answer at once, whatever they are asked."""
        return str(self._response.headers.get("content-type", "")).lower().startswith(_EVENT_STREAM)

    async def events(self) -> AsyncIterator[ServerSentEvent]:
        """Its events; ``[DONE]`` is none."""
        chunks = self._account.chunks_capped(self._response, self._account.max_answer_bytes)
        async for event in server_sent_events(chunks, silence_s=self._account.settings.silence_s):
            self.paid = True
            if event.data.strip() != "[DONE]":
                yield event

    async def body(self) -> bytes:
        """All of it."""
        body = await self._account.read_capped(self._response, self._account.max_answer_bytes)
        self.paid = True
        return body


class Account(HTTPConnector):
    """One key or deployment of a server that speaks OpenAI's API.

    Args:
        on_rest: told how long to send nothing, by the rate limits that answers tell.
    """

    service_type = "openai"
    version = "1.0.0"
    health_path = "/models"

    def __init__(
        self,
        config: ServiceConfig,
        account: AccountConfig,
        settings: OpenAISettings,
        prices: Prices,
        *,
        on_limit: Callable[[str, float], None],
    ) -> None:
        self.account = account
        self.settings = settings
        self.prices = prices
        self._on_limit = on_limit
        super().__init__(config, base_url=account.base_url)
        self.max_answer_bytes = settings.max_answer_bytes  # type: ignore[misc]  # this server's own limit

    def make_headers(self) -> dict[str, str]:
        """The key, and who is charged."""
        account = self.account
        told = {
            "authorization": f"Bearer {account.api_key}" if account.api_key else "",
            "openai-organization": account.organization,
            "openai-project": account.project,
        }
        return {**super().make_headers(), **{name: value for name, value in told.items() if value}}

    def error_for(self, reply: Reply, doing: str) -> EmpError:
        """Errors are told by type and code."""
        self.heed(reply.headers)
        return error_of_answer(reply.status, reply.headers, reply.text, endpoint=self.endpoint, doing=doing)

    def heed(self, headers: Mapping[str, str]) -> None:
        """Take note of the rate limits that an answer tells."""
        if (seconds := rest_s(headers)) > 0:
            self._on_limit(self.account.name, seconds)

    def may_resend(self, task: Task) -> bool:
        """Whether a job may be sent again whose answer broke off."""
        if task.resend is not None:
            return task.resend
        return {"always": True, "never": False}.get(self.settings.resend, self.account.is_ours)

    @asynccontextmanager
    async def post(self, path: str, task: Task, context: JobContext, **options: Any) -> AsyncIterator[Answer]:
        """Ask for an answer. Whatever breaks it off after it began is not repeated, unless that is allowed.

        Raises:
            NotRepeated: it broke off, and may have cost something.
            ConnectorError: what became of it otherwise.
        """
        answer: Answer | None = None
        try:
            # No byte comes while a request waits for its turn.
            async with self.stream("POST", path, silence_s=self.settings.silence_s, **options) as response:
                self.heed(response.headers)
                context.log.info(
                    "asked",
                    account=self.account.name,
                    path=path,
                    request_id=response.headers.get("x-request-id") or None,
                )
                answer = Answer(self, response)
                yield answer
        except (ServiceUnavailable, JobFailed) as error:
            if answer is None or not answer.paid or self.may_resend(task):
                raise
            raise NotRepeated(
                f"{error.message}; it may have been paid for and is not sent again",
                hint="jobs with `resend` are, and all of them with EMP_OPENAI_RESEND=always",
                details={**error.details, "because": error.code},
            ) from error

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - the context has it
        """Run a job on this account, with the model that it names."""
        task: Task = context.payload
        return await self.run(task, task.model, context)

    async def run(self, task: Task, model: str, context: JobContext) -> JobResult:
        """Run a task on this account.

        Raises:
            ConnectorError: what became of it; NotRepeated when it broke off and may have cost something.
        """
        return await run_task(self, task, model, context)

    def broke_off(self, doing: str, **details: Any) -> ConnectionLost:
        """The error for an answer that ended before its end."""
        return ConnectionLost(
            f"{self.endpoint} ended its answer to {doing} before it was whole",
            details={"endpoint": self.endpoint, "request": doing, "reason": "incomplete", **details},
        )

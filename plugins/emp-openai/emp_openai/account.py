"""`Account`: one key or deployment, and what is said there."""

import json
import math
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import anyio

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector, Reply
from emp_core.errors import (
    AuthenticationFailed,
    ConnectionLost,
    ConnectorError,
    EmpError,
    InvalidJob,
    NotRepeated,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_openai.answer import Answer
from emp_openai.errors import error_of_answer, request_id_of
from emp_openai.limits import Allowance
from emp_openai.payloads import Respond, Task
from emp_openai.prices import Prices
from emp_openai.settings import AccountConfig, OpenAISettings
from emp_openai.tasks import run_task
from emp_openai.waiting import while_it_lives

__all__ = ["Account", "LimitAhead", "Pool"]

_MODELS_KEPT = 512
_NO_LIST = (403, 404, 405, 501)
"""Servers that have no list of models, and those that do not show it to every key, are there all the same."""


class Pool(Protocol):
    """What an account tells those who choose among several, and is told."""

    def limit_met(self) -> None:
        """A rate limit is about to be met."""

    def no_answer(self, name: str) -> str | None:
        """Why nobody there answers questions; None: somebody does."""


class LimitAhead(RateLimited):
    """The rate limit would be met: nothing was sent."""


class Account(HTTPConnector):
    """One key or deployment of a server that speaks OpenAI's API."""

    service_type = "openai"
    version = "1.0.0"
    health_path = "/models"

    def __init__(
        self, config: ServiceConfig, account: AccountConfig, settings: OpenAISettings, prices: Prices, *, pool: Pool
    ) -> None:
        self.account = account
        self.settings = settings
        self.prices = prices
        self._pool = pool
        self._allowances: dict[str, Allowance] = {}
        self._slots = anyio.CapacityLimiter(account.slots or math.inf)
        self._has_one_slot = False
        super().__init__(config, base_url=account.base_url)
        self.max_answer_bytes = settings.max_answer_bytes  # type: ignore[misc]  # this server's own limit

    @property
    def slots(self) -> int | None:
        """Jobs at once; None: as many as come."""
        return None if self._slots.total_tokens == math.inf else int(self._slots.total_tokens)

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
        return error_of_answer(reply.status, reply.headers, reply.text, endpoint=self.endpoint, doing=doing)

    async def look(self) -> None:
        """Find out that it can be used.

        A llama-cpp-python server stops the answer that it gives when anything else is asked, be it only its list of models. So
        it gets one job at a time, and is asked for what it does not have: its 404 says that it is there.

        Raises:
            AuthenticationFailed, QuotaExhausted, ServiceBusy, ServiceUnavailable: it cannot.
        """
        path = "/nothing" if self._has_one_slot else self.health_path
        try:
            reply = await self.request("GET", path, silence_s=self.health_timeout_s, accept=_NO_LIST)
        except (AuthenticationFailed, QuotaExhausted, ServiceBusy, ServiceUnavailable):
            raise
        except EmpError as error:
            raise ServiceUnavailable(error.message, hint="is the address right?", details=error.details) from error
        if not self._has_one_slot and reply.status == 200 and _is_llama_cpp_python(reply.body):
            self._has_one_slot = True
            if self.account.slots is not None:
                return  # somebody knows better: it can be told not to be interrupted
            self._slots.total_tokens = 1
            self.log.info("this server gets one job at a time: a second one would stop the first", server=self.endpoint)

    def may_have(self, model: str) -> bool:
        """Whether it has a model, as far as it is told."""
        return not self.account.models or model in self.account.models

    def allowance(self, model: str) -> Allowance:
        """What may still be sent for a model: limits are told and counted by model."""
        if model not in self._allowances and len(self._allowances) >= _MODELS_KEPT:
            del self._allowances[next(iter(self._allowances))]
        return self._allowances.setdefault(model, Allowance())

    @property
    def rests_s(self) -> float:
        """For how long nothing may be sent for any model that was asked for lately."""
        return min((one.wait_s for one in self._allowances.values() if one.is_used), default=0.0)

    def may_resend(self, task: Task) -> bool:
        """Whether a job may be sent again whose answer broke off."""
        own = self.settings.resend if self.account.resend is None else self.account.resend
        return own if task.resend is None else task.resend

    @asynccontextmanager
    async def post(
        self, path: str, task: Task, model: str, context: JobContext, **options: Any
    ) -> AsyncIterator[Answer]:
        """Ask for an answer. One that breaks off after it began is not asked for again, unless that is allowed.

        Raises:
            LimitAhead: the rate limit would be met; nothing was sent.
            NotRepeated: it broke off, and may have to be paid for.
            ConnectorError: what became of it otherwise.
        """
        doing = f"POST {path}"
        answer: Answer | None = None
        try:
            async with AsyncExitStack() as stack:
                allowance = self.allowance(model)
                if allowance.wait_s > 0:
                    raise LimitAhead(f"the rate limit of {self.account.name} for {model} is met")
                with allowance.one():
                    response = await while_it_lives(
                        lambda: stack.enter_async_context(self.stream("POST", path, silence_s=None, **options)),
                        lambda: self._pool.no_answer(self.account.name),
                        self.endpoint,
                    )
                allowance.heed(response.headers)
                if allowance.wait_s > 0:
                    self._pool.limit_met()
                context.log.info(
                    "asked", account=self.account.name, path=path, request_id=request_id_of(response.headers)
                )
                keep = not self.may_resend(task) or (isinstance(task, Respond) and task.background)
                answer = Answer(self, response, context, doing=doing, keep=keep)
                yield answer
        except ConnectorError as error:
            if answer is None and (request_id := error.details.get("request_id")):
                context.log.info("refused", account=self.account.name, path=path, request_id=request_id)
            told = self.once(error, task) if answer is not None and answer.paid else error
            if told is error:
                raise
            raise told from error

    def once(self, error: ConnectorError, task: Task) -> ConnectorError:
        """The error of a job that may have to be paid for: it is not sent again because of it, unless that is allowed."""
        if isinstance(error, InvalidJob | NotRepeated) or self.may_resend(task):
            return error
        return NotRepeated(
            f"{error.message}; it may have to be paid for and is not sent again",
            hint="jobs with `resend` are, and all of them with EMP_OPENAI_RESEND=true",
            details={**error.details, "because": error.code},
        )

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - the context has it
        """Run a job on this account, with the model that it names."""
        task: Task = context.payload
        return await self.run(task.meant(), task.model, context)

    async def run(self, task: Task, model: str, context: JobContext) -> JobResult:
        """Run a task on this account, when it is its turn.

        Raises:
            ConnectorError: what became of it; NotRepeated when it broke off and may have to be paid for.
        """
        if self._slots.available_tokens < 1:
            await context.progress(0.0, f"waiting for its turn at {self.account.name}")
        async with self._slots:
            return await run_task(self, task, model, context)

    def broke_off(self, doing: str, **details: Any) -> ConnectionLost:
        """The error for an answer that ended before its end."""
        return ConnectionLost(
            f"{self.endpoint} ended its answer to {doing} before it was whole",
            details={"endpoint": self.endpoint, "request": doing, "reason": "incomplete", **details},
        )


def _is_llama_cpp_python(models: bytes) -> bool:
    """Whether a list of models is that of llama-cpp-python's server: its models are its own, it says."""
    try:
        listed = json.loads(models)["data"]
        return any(one["owned_by"] == "me" and "permissions" in one for one in listed)
    except (ValueError, TypeError, LookupError, RecursionError):
        return False

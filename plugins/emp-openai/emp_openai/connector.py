"""`OpenAIConnector`: jobs as requests to OpenAI, or to any server that speaks its API."""

from typing import Any

from attrs import evolve

from emp_core.config import load_settings
from emp_core.connectors.base import Connector, Health, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.endpoints.balancers import BALANCERS
from emp_core.endpoints.endpoint import Endpoint, Reading
from emp_core.endpoints.place import Place, PoolOptions
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import (
    AuthenticationFailed,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    NotHere,
    OutOfMemory,
    QuotaExhausted,
    ServiceBusy,
    ServiceUnavailable,
)
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_openai.account import Account
from emp_openai.payloads import PAYLOADS, Choice, Task
from emp_openai.prices import Prices
from emp_openai.settings import OpenAISettings

__all__ = ["OpenAIConnector"]

_NO_LIST = (404, 405, 501)
"""Servers that have no list of models are there all the same."""
_ELSEWHERE = (
    MissingModel,
    NotHere,
    ServiceBusy,
    ServiceUnavailable,
    QuotaExhausted,
    AuthenticationFailed,
    OutOfMemory,
    JobFailed,
)


class OpenAIConnector(Connector):
    """Runs chats, responses, pictures and embeddings on one account or several.

    An account that is at its limit rests, and so does the service when all are. A job goes to its fallbacks, in order, when
    its model or account cannot be had, but never after an answer began that may have to be paid for.
    """

    service_type = "openai"
    version = "1.0.0"
    payload_class = PAYLOADS

    def __init__(self, config: ServiceConfig) -> None:
        super().__init__(config)
        self.settings = load_settings(OpenAISettings, config.environ)
        prices = Prices.read(self.settings.prices)
        configs = self.settings.account_configs(config.environ)
        self.accounts = {
            one.name: Account(config, one, self.settings, prices, on_limit=self._limit_met) for one in configs
        }
        self.max_concurrent_jobs = sum(one.slots for one in configs)
        self.pool = EndpointPool(
            [
                Endpoint(one.name, self.accounts[one.name].endpoint, priority=one.priority, slots=one.slots)
                for one in configs
            ],
            self._ask,
            balancer=BALANCERS[self.settings.balancer](),
            options=PoolOptions(check_every_s=30.0),
        )

    async def connect(self) -> None:
        """Find out that an account can be used.

        Raises:
            AuthenticationFailed, ServiceUnavailable: none can; what the first one said.
        """
        failures = []
        for account in self.accounts.values():
            try:
                await self._look(account)
            except EmpError as error:
                failures.append(error)
        if len(failures) == len(self.accounts):
            raise failures[0]

    async def watch(self) -> None:
        """Keep asking the accounts how they are."""
        await self.pool.watch()

    async def disconnect(self) -> None:
        """Close all connections."""
        for account in self.accounts.values():
            await account.disconnect()

    async def check_health(self) -> Health:
        """Whether an account takes jobs now."""
        states = await self.pool.refresh(everyone=True)
        if any(state.reason is None for state in states):
            return Health(ok=True)
        said = "; ".join(f"{state.name}: {state.reason}" for state in states)
        return Health(ok=False, reason=said, details={"accounts": [state.as_dict() for state in states]})

    async def get_service_info(self) -> ServiceInfo:
        """The accounts, as they are."""
        return ServiceInfo(
            self.config.name,
            self.version,
            details={"accounts": [{"name": one.name, "endpoint": one.endpoint.url} for one in self.pool.states()]},
        )

    async def process_job(self, job: Job, context: JobContext) -> JobResult:  # noqa: ARG002 - the context has it
        """Run a task, on the first of its choices that can be had.

        Raises:
            ContentRefused: the content is refused.
            NotRepeated: an answer broke off that may have been paid for.
            ConnectorError: what the last choice said.
        """
        if all(state.reason is not None for state in self.pool.states()):
            await self.pool.refresh(everyone=True)  # they may be back, and nobody else is left to ask
        task: Task = context.payload
        tried: list[dict[str, Any]] = []
        choices = task.choices()
        for number, choice in enumerate(choices):
            try:
                result = await self._at(choice, task, context)
            except EmpError as error:
                is_last = number == len(choices) - 1
                if is_last or not _is_worth_another(error) or context.has_put_out or context.service_job_id:
                    raise
                tried.append({"model": choice.model, "account": choice.account, "code": error.code})
                following = choices[number + 1]
                await context.warn(f"{choice.model}: {error.message}; going on with {following.model}")
            else:
                return evolve(result, data={**result.data, "tried": tried}) if tried else result
        raise AssertionError("a task has a choice")  # pragma: no cover

    async def _at(self, choice: Choice, task: Task, context: JobContext) -> JobResult:
        model = choice.model or task.model
        # A response that an earlier attempt began is at one account and nowhere else.
        left_at = context.endpoint if context.service_job_id is not None else None

        async def work(place: Place) -> JobResult:
            context.run_at(place.name)
            return await self.accounts[place.name].run(task, model, context)

        def has_model(endpoint: Endpoint) -> bool:
            models = self.accounts[endpoint.name].account.models
            return not models or model in models

        return await self.pool.run(
            work,
            kind=model,
            at=left_at or choice.account,
            fit=has_model,
            may_move=lambda: not context.has_put_out and context.service_job_id is None,
        )

    async def _ask(self, endpoint: Endpoint) -> Reading:
        await self._look(self.accounts[endpoint.name])
        return Reading()

    async def _look(self, account: Account) -> None:
        limit_s = account.health_timeout_s
        await account.request("GET", account.health_path, silence_s=limit_s, accept=_NO_LIST)

    def _limit_met(self, name: str, seconds: float) -> None:
        self.pool.pause(name, seconds, "its rate limit is met")
        paused = [state.paused_s for state in self.pool.states()]
        if min(paused) > 0:
            self.rest(min(paused), "the rate limits of all accounts are met")


def _is_worth_another(error: EmpError) -> bool:
    """Whether another model or account may do better: not with what is wrong in itself, but with what is too long here."""
    return isinstance(error, _ELSEWHERE) or (
        isinstance(error, InvalidJob) and error.details.get("reason") == "context_exceeded"
    )

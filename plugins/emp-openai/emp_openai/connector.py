"""`OpenAIConnector`: jobs as requests to OpenAI, or to any server that speaks its API."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import anyio
from attrs import evolve

from emp_core.config import load_settings
from emp_core.connectors.base import Connector, Health, ServiceConfig, ServiceInfo
from emp_core.connectors.context import JobContext
from emp_core.endpoints.balancers import BALANCERS
from emp_core.endpoints.endpoint import Endpoint, EndpointStatus, Reading
from emp_core.endpoints.place import Place, PoolOptions
from emp_core.endpoints.pool import EndpointPool
from emp_core.errors import (
    AuthenticationFailed,
    EmpError,
    InvalidJob,
    JobFailed,
    MissingModel,
    NotHere,
    NotRepeated,
    OutOfMemory,
    QuotaExhausted,
    RateLimited,
    ServiceBusy,
    ServiceUnavailable,
)
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult
from emp_openai.account import Account, LimitAhead
from emp_openai.payloads import PAYLOADS, Choice, Respond, Task
from emp_openai.prices import Prices
from emp_openai.settings import OpenAISettings

__all__ = ["OpenAIConnector"]

_SLOTS = 8
"""Jobs at once at an account that does not say."""
_WAIT_HERE_S = 120.0
"""A job that was claimed waits here for so long until an account's rest is over; otherwise it goes back into the queue."""
_PAUSE_S = 60.0
_BUSY_S = 5.0
"""How long a model rests whose limit was met where nobody says how long."""
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
_FOR_ANOTHER_MODEL = ("context_exceeded", "not_supported")


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
        self.accounts = {one.name: Account(config, one, self.settings, prices, pool=self) for one in configs}
        self.pool = EndpointPool(
            [
                Endpoint(one.name, self.accounts[one.name].endpoint, priority=one.priority, slots=one.slots or _SLOTS)
                for one in configs
            ],
            self._ask,
            balancer=BALANCERS[self.settings.balancer](),
            options=PoolOptions(check_every_s=30.0, pause_s=_PAUSE_S),
        )
        self.max_concurrent_jobs = self._jobs_at_once
        self._refusals: dict[str, EmpError] = {}
        """Why accounts have no money, or will not have us, by their names: as jobs found out."""
        self._looks: dict[str, EmpError] = {}
        """The same, as was found out without jobs."""

    async def connect(self) -> None:
        """Find out that an account can be used.

        Raises:
            AuthenticationFailed, QuotaExhausted, ServiceBusy, ServiceUnavailable: none can; what the first one said.
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
        # Without how long it rests: what changes every second would be told every second.
        reasons = {state.name: (state.reason or "").partition(" (for ")[0] for state in states}
        said = "; ".join(f"{name}: {reason}" if len(reasons) > 1 else reason for name, reason in reasons.items())
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
            NotRepeated: an answer broke off, here or in an earlier attempt, that may have to be paid for.
            ConnectorError: what the last choice said.
        """
        task: Task = context.payload.meant()
        self._look_back(task, context)
        if all(state.reason is not None for state in self.pool.states()):
            await self.pool.refresh(everyone=True)  # they may be back, and nobody else is left to ask
        tried: list[dict[str, Any]] = []
        # A response that an earlier attempt began is where it is; there is nothing to choose.
        choices = task.choices() if context.service_job_id is None else task.choices()[:1]
        for choice, following in pairwise(choices):
            try:
                result = await self._at(choice, task, context)
            except EmpError as error:
                if not _is_worth_another(error) or context.has_put_out or context.service_job_id is not None:
                    raise
                tried.append({"model": choice.model, "account": choice.account, "code": error.code})
                await context.warn(f"{choice.model}: {error.message}; going on with {following.model}")
            else:
                return _with(tried, result)
        return _with(tried, await self._when_rested(choices[-1], task, context))

    def _look_back(self, task: Task, context: JobContext) -> None:
        """What an earlier attempt left: a response that can be taken over, or an answer that nobody has to the end."""
        run = context.service_job_id
        if run is None or (isinstance(task, Respond) and task.background):
            return
        account = self.accounts.get(context.endpoint or "", next(iter(self.accounts.values())))
        if not account.may_resend(task):
            raise NotRepeated(
                "an earlier attempt got a part of its answer, which may have to be paid for, and it is not sent again",
                hint="jobs with `resend` are, and all of them with EMP_OPENAI_RESEND=true",
                details={"account": context.endpoint, "answer": run},
            )
        context.service_job_id = None

    async def _when_rested(self, choice: Choice, task: Task, context: JobContext) -> JobResult:
        """Run a task at its last choice; while that rests, and for not too long, the job waits here."""
        while True:
            try:
                return await self._at(choice, task, context)
            except ServiceBusy as error:
                wait_s = error.retry_after_s
                if "away" not in error.details or wait_s is None or wait_s > _WAIT_HERE_S:
                    raise
                await context.progress(0.0, f"waiting: {error.message}")
            await anyio.sleep(wait_s)

    async def _at(self, choice: Choice, task: Task, context: JobContext) -> JobResult:
        """Run a task at one of its choices, on whichever of its accounts takes it."""
        model = choice.model or task.model
        # A response that an earlier attempt began is at one account and nowhere else.
        at = (context.endpoint if context.service_job_id is not None else None) or choice.account
        refused: dict[str, RateLimited] = {}
        while True:
            self._find_one_that_may_be_asked(model, at, refused)
            came = await self._run_at(at, model, task, context, refused)
            if not isinstance(came, RateLimited):
                return came
            if not isinstance(came, LimitAhead):
                name = context.endpoint or ""
                refused[name] = came
                told = _BUSY_S if came.retry_after_s is None else came.retry_after_s
                self.accounts[name].allowance(model).rest(told)
            if context.has_put_out or context.service_job_id is not None:
                raise came

    def _find_one_that_may_be_asked(self, model: str, at: str | None, refused: Mapping[str, RateLimited]) -> None:
        """Find out that an account may have the model, was not asked yet, and has not met its limit.

        Args:
            refused: what those said that were asked.

        Raises:
            MissingModel: none has it.
            RateLimited: what the last one said.
            ServiceBusy: the limits of all that have it would be met.
        """
        if at is None and not any(account.may_have(model) for account in self.accounts.values()):
            raise MissingModel(f"no account here has {model}", hint="EMP_OPENAI_ACCOUNTS tells what each has")
        named = [name for name, account in self.accounts.items() if (name == at if at else account.may_have(model))]
        left = [name for name in named if name not in refused]
        if refused and not left:
            raise [*refused.values()][-1]
        waits = [self.accounts[name].allowance(model).wait_s for name in left]
        if waits and min(waits) > 0:
            said = f"the rate limit of {', '.join(left)} for {model} is met"
            raise ServiceBusy(said, retry_after_s=min(waits), details={"away": left, "limited": True})

    async def _run_at(
        self, at: str | None, model: str, task: Task, context: JobContext, refused: Mapping[str, RateLimited]
    ) -> JobResult | RateLimited:
        """Run a task somewhere; a rate limit is given back, since it says nothing of the account's other models."""

        async def work(place: Place) -> JobResult | RateLimited:
            context.run_at(place.name)
            try:
                result = await self.accounts[place.name].run(task, model, context)
            except RateLimited as error:
                error.details.setdefault("server", place.name)
                return error
            except (QuotaExhausted, AuthenticationFailed) as error:
                self._refusals[place.name] = error
                raise
            self._refusals.pop(place.name, None)
            return result

        def may_be_asked(endpoint: Endpoint) -> bool:
            account = self.accounts[endpoint.name]
            is_new = endpoint.name not in refused
            return is_new and account.may_have(model) and account.allowance(model).wait_s <= 0

        try:
            return await self.pool.run(
                work,
                kind=model,
                at=at,
                fit=may_be_asked,
                may_move=lambda: not context.has_put_out and context.service_job_id is None,
            )
        except (ServiceBusy, ServiceUnavailable) as error:
            raise self._refusal_behind(error) or error from None

    def _refusal_behind(self, error: EmpError) -> EmpError | None:
        """Accounts that rest because they refuse us are not away: the operator has to do something, and no attempt counts."""
        away: Any = error.details.get("away") if "limited" not in error.details else None
        names = away if isinstance(away, list) else ()
        refusals = [self._looks.get(name) or self._refusals.get(name) for name in names]
        return refusals[0] if refusals and None not in refusals else None

    async def _ask(self, endpoint: Endpoint) -> Reading:
        await self._look(self.accounts[endpoint.name])
        return Reading()

    async def _look(self, account: Account) -> None:
        name = account.account.name
        self._looks.pop(name, None)
        try:
            await account.look()
        except (QuotaExhausted, AuthenticationFailed) as error:
            self._looks[name] = error
            raise
        endpoint = next(one for one in self.pool.endpoints if one.name == name)
        if account.slots is not None and account.slots != endpoint.slots:
            self.pool.change(evolve(endpoint, slots=account.slots))
            self.max_concurrent_jobs = self._jobs_at_once

    @property
    def _jobs_at_once(self) -> int:
        return sum(one.slots for one in self.pool.endpoints)

    def limit_met(self) -> None:
        """A rate limit is about to be met: the service rests when all that was asked for lately does, everywhere."""
        rests_s = min(account.rests_s for account in self.accounts.values())
        if rests_s > 0:
            self.rest(rests_s, "the rate limits of all accounts are met")

    def no_answer(self, name: str) -> str | None:
        """Why an account answers no questions; None: it does."""
        state = self.pool.state(name)
        return (state.reason or "it does not answer") if state.status is EndpointStatus.OFFLINE else None


def _is_worth_another(error: EmpError) -> bool:
    """Whether another model or account may do better: not with what is wrong in itself, but with what this one cannot."""
    if isinstance(error, InvalidJob):
        return error.details.get("reason") in _FOR_ANOTHER_MODEL
    return isinstance(error, _ELSEWHERE)


def _with(tried: list[dict[str, Any]], result: JobResult) -> JobResult:
    return evolve(result, data={**result.data, "tried": tried}) if tried else result

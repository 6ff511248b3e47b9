"""Responses, in the background where the server can: its id is stored before anything else, so that the run outlives its worker.

A background response goes on when nobody listens. It can be asked for by its id, followed again from any event, and
cancelled. Servers that know no background answer as if they had not been asked for it; then a run that breaks off is lost.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import anyio
from attrs import evolve

from emp_core.connectors.context import JobContext
from emp_core.errors import ConnectorError, InvalidJob, NotRepeated
from emp_core.jobs.outcomes import JobResult
from emp_openai.answer import Answer
from emp_openai.following import PATH, Following, Gone
from emp_openai.payloads import Respond
from emp_openai.pictures import Attached
from emp_openai.response import failure_of, result_of
from emp_openai.waiting import not_stopped_before

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]

_DOING = f"POST {PATH}"


async def run(account: "Account", task: Respond, model: str, context: JobContext) -> JobResult:
    """Get a response; take over one that an earlier attempt began.

    Raises:
        ContentRefused: the model refuses, or a filter took the answer.
        NotRepeated: what became of it is not known, or it failed, and it may have to be paid for.
        ConnectorError: what the server says.
    """
    if context.service_job_id is not None:
        following = await _taken_over(account, task, context.service_job_id, context)
        if following is not None:
            # An earlier attempt chose its model, perhaps among the fallbacks.
            chosen = following.response.get("model")
            model = chosen if isinstance(chosen, str) else model
            result = await _result(following, task, model)
            return evolve(result, data={"model": model, **result.data})
        context.service_job_id = None
    following = Following(account, context)
    try:
        if task.background:
            await not_stopped_before(following.known, lambda: _begin(following, task, model))
        else:
            await _begin(following, task, model)
    except Gone as gone:  # its connection broke, and it did not go on without
        raise account.once(account.broke_off(_DOING, said=following.text[-200:]), task) from gone
    return await _result(following, task, model)


async def _begin(following: Following, task: Respond, model: str) -> None:
    account, context = following.account, following.context
    given = await context.replace_inputs(task.body(), Attached().as_data_url)
    body = {**given, "model": model, "stream": True}
    if task.background:
        body |= {"background": True, "store": True}
    await context.progress(0.0, f"waiting for {model}")
    async with _stopped_with_us(following):
        async with account.post(PATH, task, model, context, json=body) as answer:
            try:
                await _take(answer, following, task)
            except ConnectorError as error:
                if not following.in_background:
                    raise
                said = "the stream broke off; the response goes on"
                context.log.info(said, response=following.id, error=error.message)
            if not following.is_final and not following.in_background:
                raise account.broke_off(_DOING, said=following.text[-200:])
        await following.to_its_end()


async def _take(answer: Answer, following: Following, task: Respond) -> None:
    if not answer.is_stream:
        following.take_response(await answer.whole(), background=task.background)
        return
    async for event in answer.events():
        await following.take(event, background=task.background)
        if following.is_final:
            return


async def _taken_over(account: "Account", task: Respond, run: str, context: JobContext) -> Following | None:
    """A response that an earlier attempt began, at its end; None: it is to be begun again."""
    context.log.info("an earlier attempt's response is taken over", response=run, account=account.account.name)
    following = Following(account, context, id=run, in_background=True)
    try:
        async with _stopped_with_us(following):
            await following.to_its_end()
    except Gone as gone:
        if not account.may_resend(task):
            raise NotRepeated(
                f"{gone.message}; an earlier attempt began it, and it may have to be paid for",
                hint="jobs with `resend` are begun again",
                details=gone.details,
            ) from gone
        return None
    failure = failure_of(following)
    is_paid = following.cost_something and not account.may_resend(task)
    if failure is None or isinstance(failure, InvalidJob) or is_paid:
        return following
    context.log.info("it failed and is begun again", response=run, error=failure.message)
    return None


async def _result(following: Following, task: Respond, model: str) -> JobResult:
    account = following.account
    if failure := failure_of(following):
        raise account.once(failure, task) if following.cost_something else failure
    return await result_of(following, model)


@asynccontextmanager
async def _stopped_with_us(following: Following) -> AsyncIterator[None]:
    """Have the server stop the response when we are stopped."""
    try:
        yield
    except anyio.get_cancelled_exc_class():
        await following.cancel()
        raise

"""From a task to what runs it."""

from typing import TYPE_CHECKING

from attrs import evolve

from emp_core.connectors.context import JobContext
from emp_core.errors import InvalidJob
from emp_core.jobs.outcomes import JobResult
from emp_openai import chat, embeddings, images, responses
from emp_openai.payloads import Chat, Edit, Embed, Image, Respond, Task

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run_task"]


async def run_task(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Run a task on an account, and say in its result what ran it. Raises ConnectorError: what became of it."""
    match task:
        case Chat():
            result = await chat.run(account, task, model, context)
        case Respond():
            result = await responses.run(account, task, model, context)
        case Image():
            result = await images.generate(account, task, model, context)
        case Edit():
            result = await images.edit(account, task, model, context)
        case Embed():
            result = await embeddings.run(account, task, model, context)
        case _:
            raise InvalidJob(f"{type(task).__name__} is no task for OpenAI's API")
    data = {"model": model, "task": task.task, "account": account.account.name, **result.data}
    return evolve(result, data=data)

"""From a task to what runs it."""

from typing import TYPE_CHECKING

from attrs import evolve

from emp_core.connectors.context import JobContext
from emp_core.jobs.outcomes import JobResult
from emp_openai import chat, embeddings, images, responses
from emp_openai.payloads import AnyTask, Task

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run_task"]

_RUN = {
    "chat": chat.run,
    "responses": responses.run,
    "images": images.generate,
    "edits": images.edit,
    "embeddings": embeddings.run,
}


async def run_task(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Run a task on an account, and say in its result what ran it."""
    task = task.meant() if isinstance(task, AnyTask) else task
    result = await _RUN[task.task](account, task, model, context)
    data = {"model": model, "task": task.task, "account": account.account.name, **result.data}
    return evolve(result, data=data)

"""Embeddings: one question, one answer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from emp_core.connectors.context import JobContext
from emp_core.connectors.streams import parsed
from emp_core.errors import JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_openai.payloads import Task
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]


async def run(account: "Account", task: Task, model: str, context: JobContext) -> JobResult:
    """Turn texts into vectors.

    Raises:
        JobFailed: the answer has none.
        ConnectorError: what the server says.
    """
    await context.progress(0.0, f"waiting for {model}")
    async with account.post("/embeddings", task, context, json={**task.body(), "model": model}) as answer:
        told = parsed((await answer.body()).decode("utf-8", "replace"), account.endpoint)
        items = told.get("data") if isinstance(told, Mapping) else None
        if not isinstance(items, list) or not all(isinstance(one, Mapping) and "embedding" in one for one in items):
            raise JobFailed(f"{account.endpoint} answered without embeddings", details={"reason": "garbage"})
    in_order = sorted(items, key=lambda one: one.get("index", 0))
    vectors = [one["embedding"] for one in in_order]
    return JobResult(data={"embeddings": vectors}, usage=usage_of(told.get("usage"), model, account.prices))

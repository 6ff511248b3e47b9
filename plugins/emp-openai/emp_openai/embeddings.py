"""Embeddings: one question, one answer."""

from typing import TYPE_CHECKING

from emp_core.connectors.context import JobContext
from emp_core.errors import JobFailed
from emp_core.jobs.outcomes import JobResult
from emp_openai.payloads import Embed
from emp_openai.usage import usage_of

if TYPE_CHECKING:
    from emp_openai.account import Account

__all__ = ["run"]


async def run(account: "Account", task: Embed, model: str, context: JobContext) -> JobResult:
    """Turn texts into vectors.

    Raises:
        JobFailed: the answer has none, or fewer than there are texts.
        ConnectorError: what the server says.
    """
    await context.progress(0.0, f"waiting for {model}")
    async with account.post("/embeddings", task, model, context, json={**task.body(), "model": model}) as answer:
        told = await answer.whole()
        items = told.get("data")
        if not isinstance(items, list) or not all(isinstance(one, dict) and one.get("embedding") for one in items):
            raise JobFailed(f"{account.endpoint} answered without embeddings", details={"reason": "garbage"})
        if len(items) != (expected := _texts_in(task)):
            said = f"{account.endpoint} made {len(items)} vectors of {expected} texts"
            raise JobFailed(said, details={"reason": "incomplete"})
    places = [one.get("index") for one in items]
    if all(isinstance(place, int) for place in places):
        items = [items[number] for number in sorted(range(len(items)), key=places.__getitem__)]
    vectors = [one["embedding"] for one in items]
    return JobResult(data={"embeddings": vectors}, usage=usage_of(told.get("usage"), model, account.prices))


def _texts_in(task: Embed) -> int:
    """How many texts there are; one may be given as numbers, its tokens."""
    given = task.input
    return 1 if isinstance(given, str) or any(isinstance(one, int) for one in given) else len(given)

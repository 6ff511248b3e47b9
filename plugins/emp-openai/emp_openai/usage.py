"""Token counts, under one set of names for all of the API's."""

from collections.abc import Mapping
from typing import Any

from emp_openai.prices import Prices

__all__ = ["usage_of"]


def usage_of(told: Any, model: str, prices: Prices) -> dict[str, Any]:
    """What an answer's ``usage`` says, and what it cost; empty when it says nothing.

    Chat completions count prompt and completion tokens, everything else input and output tokens.
    """
    if not isinstance(told, Mapping):
        return {}
    prompt = _whole(told.get("prompt_tokens", told.get("input_tokens")))
    answer = _whole(told.get("completion_tokens", told.get("output_tokens")))
    usage: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": answer,
        "total_tokens": _whole(told.get("total_tokens")) or prompt + answer,
    }
    of_prompt = told.get("prompt_tokens_details", told.get("input_tokens_details"))
    of_answer = told.get("completion_tokens_details", told.get("output_tokens_details"))
    for name, details, key in (
        ("cached_tokens", of_prompt, "cached_tokens"),
        ("reasoning_tokens", of_answer, "reasoning_tokens"),
    ):
        if isinstance(details, Mapping) and (count := _whole(details.get(key))):
            usage[name] = count
    cost = told.get("cost")  # some providers say it themselves
    cost = cost if isinstance(cost, int | float) and not isinstance(cost, bool) else prices.cost_usd(model, usage)
    return usage if cost is None else {**usage, "cost_usd": cost}


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

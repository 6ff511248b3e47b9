"""What answers cost, by a table that the operator gives."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from attrs import field, frozen

from emp_core.errors import ConfigError

__all__ = ["Prices"]

_KINDS = ("input", "cached_input", "output")
_PER = 1e6


@frozen
class Prices:
    """Dollars for a million tokens, by model: ``input``, ``cached_input`` (of the input what was cached), ``output``."""

    by_model: Mapping[str, Mapping[str, float]] = field(factory=dict)

    @classmethod
    def read(cls, path: Path | None) -> "Prices":
        """The table of a JSON file: ``{"gpt-4o": {"input": 2.5, "cached_input": 1.25, "output": 10}}``.

        Raises:
            ConfigError: it cannot be read; lists every mistake.
        """
        if path is None:
            return cls()
        try:
            told = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the prices in {path} cannot be read: {error}", hint="see EMP_OPENAI_PRICES") from error
        if problems := tuple(_mistakes(told)):
            raise ConfigError(f"the prices in {path} cannot be used", problems=problems, hint="see EMP_OPENAI_PRICES")
        return cls(told)

    def cost_usd(self, model: str, usage: Mapping[str, Any]) -> float | None:
        """What tokens cost; None: the table does not have the model. A name with a date means the one without."""
        known = [name for name in self.by_model if model == name or model.startswith(f"{name}-20")]
        if not known:
            return None
        prices = self.by_model[max(known, key=len)]
        input_price = prices.get("input", 0.0)
        tokens: int = usage.get("prompt_tokens", 0)
        cached = min(usage.get("cached_tokens", 0), tokens)
        paid = (tokens - cached) * input_price + cached * prices.get("cached_input", input_price)
        paid += usage.get("completion_tokens", 0) * prices.get("output", 0.0)
        return float(round(paid / _PER, 8))


def _mistakes(told: Any) -> Iterator[str]:
    if not isinstance(told, dict):
        yield "expected an object with a model in each key"
        return
    for model, prices in told.items():
        if not isinstance(prices, dict):
            yield f"{model}: expected an object"
            continue
        for kind, price in prices.items():
            if kind not in _KINDS:
                yield f"{model}.{kind}: unknown; known are {', '.join(_KINDS)}"
            elif isinstance(price, bool) or not isinstance(price, int | float) or not 0 <= price < math.inf:
                yield f"{model}.{kind}: expected a number of 0 or more"

"""`ErrorBody`: what an error's body says, whatever its shape."""

import json
import re
from collections.abc import Mapping
from typing import Any

from attrs import frozen

from emp_core.connectors.http_errors import shown

__all__ = ["ErrorBody"]

_MONEY = ("insufficient_quota", "credit_balance_exhausted", "billing_hard_limit_reached", "billing_not_active")
_SPENT = re.compile(r"(?!rate|token|context).*_limit_exceeded")
_CONTENT = (
    "content_policy_violation",
    "content_filter",
    "moderation_blocked",
    "image_generation_user_error",
    "image_content_policy_violation",
    "invalid_prompt",
    "bio_policy",
)
_NO_MODEL = re.compile(r"model.{0,80}(not found|does not exist)|invalid model name", re.IGNORECASE)
_TOO_LONG = re.compile(r"context.*(exceed|too long|maximum)|(exceed|too long|maximum).*context|too large to process")


@frozen
class ErrorBody:
    """An error as its body tells it: ``{error: {…}}``, ``{error: text}``, ``{detail: …}``, JSON inside such a text, or plain text.

    Attributes:
        code: as a text, also where it is a number; empty when there is none.
        is_flagged: whether a moderation says what it flagged (OpenRouter's ``metadata``).
    """

    message: str
    type: str = ""
    code: str = ""
    is_flagged: bool = False

    @classmethod
    def read(cls, text: str) -> "ErrorBody":
        """Read a body."""
        try:
            told: Any = json.loads(text)
        except (ValueError, RecursionError):
            return cls(shown(text))
        return cls.of(told)

    @classmethod
    def of(cls, told: Any) -> "ErrorBody":
        """Read parsed JSON."""
        error = told.get("error") or told.get("detail") or told if isinstance(told, Mapping) else told
        if isinstance(error, str) and error.lstrip().startswith("{") and "error" in error:
            return cls.read(error)
        if not isinstance(error, Mapping):
            return cls(shown(error if isinstance(error, str) else json.dumps(error, default=str)))
        message = error.get("message")
        metadata = error.get("metadata")
        return cls(
            shown(message if isinstance(message, str) else json.dumps(error, default=str)),
            str(error.get("type") or ""),
            str(error.get("code") or ""),
            isinstance(metadata, Mapping) and "flagged_input" in metadata,
        )

    @property
    def is_money(self) -> bool:
        """Whether the account has no money or quota left."""
        return any(name in _MONEY or _SPENT.fullmatch(name) for name in (self.type, self.code))

    @property
    def is_content(self) -> bool:
        """Whether it is the content that is refused."""
        return self.is_flagged or self.code in _CONTENT or self.type in _CONTENT

    @property
    def is_context(self) -> bool:
        """Whether the input is too long for the model."""
        told = self.code == "context_length_exceeded" or self.type == "exceed_context_size_error"
        return told or _TOO_LONG.search(self.message.lower()) is not None

    @property
    def is_missing_model(self) -> bool:
        """Whether there is no such model, or not for this account."""
        return self.code == "model_not_found" or _NO_MODEL.search(self.message) is not None

"""What somebody could read of the things that a test came by."""

import json
from typing import Any

from emp_core.errors import EmpError

__all__ = ["everything_shown"]


def everything_shown(*things: Any) -> str:
    """All that people and programs get to see of these things: text, repr, and what errors carry, their causes included."""
    return "\n".join(text for thing in things for text in _texts(thing, set()))


def _texts(thing: Any, seen: set[int]) -> list[str]:
    if id(thing) in seen:  # causes may stand in a circle
        return []
    seen.add(id(thing))
    texts = [str(thing), repr(thing)]
    if isinstance(thing, EmpError):
        texts.append(json.dumps(thing.as_dict(), default=repr))
    if isinstance(thing, BaseException):
        # A traceback shows the causes, too.
        texts += [
            text for cause in (thing.__cause__, thing.__context__) if cause is not None for text in _texts(cause, seen)
        ]
    return texts

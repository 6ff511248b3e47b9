"""How long nodes take: as guessed from what they are, and as learned from those that ran on this server."""

import re
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from emp_comfyui.needs import is_model_file

__all__ = ["Durations"]

_CLASSES_MOST = 2000
_NEW_SHARE = 0.3
_STEPS_MOST = 10_000
_SECONDS_MOST = 24 * 3600.0

# In seconds, for a server that nothing is known of: only how they stand to each other matters.
_PER_STEP_S = 0.5
_GUESSES = (
    (re.compile(r"sampler", re.IGNORECASE), 10.0),
    (re.compile(r"load", re.IGNORECASE), 5.0),
    (re.compile(r"upscale|interpolat|detail|video", re.IGNORECASE), 3.0),
    (re.compile(r"decode|encode", re.IGNORECASE), 1.0),
    (re.compile(r"save|preview|combine", re.IGNORECASE), 0.5),
)
_OTHERS_S = 0.1


class Durations:
    """Expected seconds of a node, by its class and, where it has them, its steps. Forgets the classes that are used least."""

    def __init__(self) -> None:
        self._learned: OrderedDict[str, float] = OrderedDict()

    def expected_s(self, class_type: str, inputs: Mapping[str, Any]) -> float:
        """How long a node is expected to run."""
        steps = _steps(inputs)
        learned = self._learned.get(class_type)
        if learned is not None:
            return max(1e-3, learned * steps)
        return _guess(class_type, inputs) if steps == 1 else _PER_STEP_S * steps

    def learn(self, class_type: str, inputs: Mapping[str, Any], seconds: float) -> None:
        """Take note of how long a node ran."""
        each = min(max(seconds, 0.0), _SECONDS_MOST) / _steps(inputs)
        before = self._learned.get(class_type, each)
        self._learned[class_type] = before + _NEW_SHARE * (each - before)
        self._learned.move_to_end(class_type)
        if len(self._learned) > _CLASSES_MOST:
            self._learned.popitem(last=False)


def _steps(inputs: Mapping[str, Any]) -> int:
    steps = inputs.get("steps")
    return min(steps, _STEPS_MOST) if isinstance(steps, int) and not isinstance(steps, bool) and steps > 1 else 1


def _guess(class_type: str, inputs: Mapping[str, Any]) -> float:
    if any(is_model_file(value) for value in inputs.values()):
        return _GUESSES[1][1]
    return next((seconds for word, seconds in _GUESSES if word.search(class_type)), _OTHERS_S)

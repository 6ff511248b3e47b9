"""What ``/object_info`` says of node classes: which there are, which are output nodes, and what their inputs may be."""

from collections.abc import Iterator, Mapping
from typing import Any

from attrs import field, frozen

from emp_comfyui.needs import is_model_file, model_name

__all__ = ["Catalogue", "choices_of", "options_of", "read_catalogue"]


@frozen
class Catalogue:
    """The node classes of a server.

    Attributes:
        names: all of them, with those that the server replaces by others.
        outputs: the output nodes among them.
        files: model files that any input may be chosen from, by their name with ``/``: as the server spells them.
    """

    names: frozenset[str] = frozenset()
    outputs: frozenset[str] = frozenset()
    files: Mapping[str, str] = field(factory=dict, repr=False)

    def joined(self, other: "Catalogue") -> "Catalogue":
        """Both."""
        return Catalogue(self.names | other.names, self.outputs | other.outputs, {**self.files, **other.files})


def read_catalogue(answer: Any) -> Catalogue:
    """Read the answer of ``/object_info``, or of ``/object_info/{class}``."""
    answer = answer if isinstance(answer, Mapping) else {}
    names: set[str] = set()
    outputs: set[str] = set()
    files: dict[str, str] = {}
    for name, told in answer.items():
        if isinstance(told, Mapping):
            names.add(name)
            if told.get("output_node") is True:
                outputs.add(name)
            for _, choices in _all_choices(told):
                files.update((model_name(choice), choice) for choice in choices if is_model_file(choice))
    return Catalogue(frozenset(names), frozenset(outputs), files)


def choices_of(told: Any, name: str) -> list[str] | None:
    """What an input may be chosen from; None: it is no choice, or has none of that name.

    Source: nodes give a list of choices as the input's type, newer ones the type ``COMBO`` with ``options``.
    """
    return next((choices for key, choices in _all_choices(told) if key == name), None)


def options_of(told: Any, name: str) -> Mapping[str, Any] | None:
    """What is said of an input beside its type; None: it has none of that name."""
    return next((options for key, _, options in _all_inputs(told) if key == name), None)


def _all_choices(told: Any) -> Iterator[tuple[str, list[str]]]:
    for name, kind, options in _all_inputs(told):
        choices = options.get("options") if kind == "COMBO" else kind
        if isinstance(choices, list):
            yield name, [choice for choice in choices if isinstance(choice, str)]


def _all_inputs(told: Any) -> Iterator[tuple[str, Any, Mapping[str, Any]]]:
    """Every input's name, type and options."""
    sections = told.get("input") if isinstance(told, Mapping) else None
    for section in ("required", "optional"):
        inputs = sections.get(section) if isinstance(sections, Mapping) else None
        for name, kind in inputs.items() if isinstance(inputs, Mapping) else ():
            if isinstance(kind, list) and kind:
                yield name, kind[0], kind[1] if len(kind) > 1 and isinstance(kind[1], Mapping) else {}

"""What a plugin answers to the hooks that describe it, checked: a wrong answer is told by plugin, hook and value."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import pluggy
from attrs import field, frozen

from emp_core.endpoints.balancers import BALANCERS
from emp_core.errors import PluginError
from emp_core.plugins.hookspecs import Registration

__all__ = ["REGISTERING_HOOKS", "Answers", "ask", "call_hook"]

REGISTERING_HOOKS: Mapping[str, str] = {
    "connector": "emp_register_connectors",
    "installer": "emp_register_installers",
    "store": "emp_register_stores",
    "balancer": "emp_register_balancers",
    "spot notice": "emp_register_spot_notices",
}
"""What is registered, and the hook that is asked for it."""

_SECTIONS = ("workers", "services", "connectors")
_TARGET = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
_SHOWN_MAX = 120


@frozen
class Answers:
    """What one plugin brings.

    Attributes:
        registrations: by kind (``connector``, ``installer``, ``store``, ``balancer``, ``spot notice``).
        mapping: its part of the service mapping: section → entry → what the file would say there.
        settings: its settings classes.
    """

    registrations: Mapping[str, tuple[Registration, ...]]
    mapping: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    settings: tuple[type, ...] = ()


def call_hook(manager: pluggy.PluginManager, plugin: str, hook: str, **arguments: Any) -> list[Any]:
    """Call one plugin's implementations of a hook; the answers that are not None.

    Each plugin is called by itself, so that what one of them raises is its own.
    """
    answers = [
        impl.function(*(arguments[name] for name in impl.argnames))
        for impl in getattr(manager.hook, hook).get_hookimpls()
        if impl.plugin_name == plugin
    ]
    return [answer for answer in answers if answer is not None]


def ask(manager: pluggy.PluginManager, plugin: str) -> Answers:
    """Ask a plugin what it brings.

    Raises:
        PluginError: an answer is not what the hook promises.
        Exception: whatever the plugin raises.
    """
    registrations = {kind: _registrations(manager, plugin, hook) for kind, hook in REGISTERING_HOOKS.items()}
    return Answers(registrations, _mapping(manager, plugin), _settings(manager, plugin))


def _registrations(manager: pluggy.PluginManager, plugin: str, hook: str) -> tuple[Registration, ...]:
    found: dict[str, Registration] = {}
    for one in _each(manager, plugin, hook, "a list of Registration"):
        if not isinstance(one, Registration):
            raise _wrong(plugin, hook, one, "a Registration")
        name: Any = one.name  # what plugins pass is not always what the annotations say
        target: Any = one.target
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise _wrong(plugin, hook, one, "a Registration with a name")
        if not isinstance(target, str) or not _TARGET.fullmatch(target):
            raise _wrong(plugin, hook, one, "a Registration whose target reads 'package.module:Class'")
        if one.name in found:
            raise PluginError(f"the plugin {plugin} registers {one.name!r} twice ({hook})")
        if hook == REGISTERING_HOOKS["balancer"] and one.name in BALANCERS:
            raise PluginError(f"the plugin {plugin} registers {one.name!r}, which is a strategy of emp-core's own")
        found[one.name] = one
    return tuple(found.values())


def _settings(manager: pluggy.PluginManager, plugin: str) -> tuple[type, ...]:
    classes = _each(manager, plugin, "emp_settings", "a list of settings classes")
    for one in classes:
        if not isinstance(one, type) or not attrs.has(one):
            raise _wrong(plugin, "emp_settings", one, "an attrs class")
    return tuple(classes)


def _mapping(manager: pluggy.PluginManager, plugin: str) -> Mapping[str, Mapping[str, Any]]:
    hook = "emp_service_mapping"
    merged: dict[str, dict[str, Any]] = {}
    for part in call_hook(manager, plugin, hook):
        if not isinstance(part, Mapping):
            raise _wrong(plugin, hook, part, "a mapping")
        for section, entries in part.items():
            if section not in _SECTIONS:
                raise _wrong(plugin, hook, section, f"the sections {', '.join(_SECTIONS)}")
            if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries):
                raise _wrong(plugin, hook, entries, f"{section} as a mapping of entries by name")
            merged.setdefault(section, {}).update(entries)
    return merged


def _each(manager: pluggy.PluginManager, plugin: str, hook: str, expected: str) -> list[Any]:
    found: list[Any] = []
    for answer in call_hook(manager, plugin, hook):
        if not isinstance(answer, Sequence) or isinstance(answer, (str, bytes)):
            raise _wrong(plugin, hook, answer, expected)
        found += answer
    return found


def _wrong(plugin: str, hook: str, value: Any, expected: str) -> PluginError:
    shown = repr(value)
    shown = shown if len(shown) <= _SHOWN_MAX else f"{shown[:_SHOWN_MAX]}…"
    return PluginError(f"the plugin {plugin} answers {hook} with {shown}; expected {expected}")

"""Finding and loading plugins: each by itself, so that one that fails takes nothing else with it."""

from collections.abc import Iterable, Iterator
from importlib.metadata import EntryPoint, entry_points
from itertools import pairwise

import pluggy

from emp_core.errors import PluginError
from emp_core.plugins import hookspecs
from emp_core.plugins.answers import Answers, ask
from emp_core.plugins.loaded import LoadedPlugin, Plugins, Registered, known_names
from emp_core.plugins.offline import OfflinePlugin

__all__ = ["ENTRY_POINT_GROUP", "load_plugins"]

ENTRY_POINT_GROUP = "emp_core.plugins"
"""The entry point group that plugins declare themselves in."""


def load_plugins(found: Iterable[EntryPoint] | None = None) -> Plugins:
    """Load the installed plugins.

    Args:
        found: entry points to load instead of the installed ones.

    Raises:
        PluginError: two plugins bring something of the same kind under the same name; names both.
    """
    manager = _new_manager()
    points = sorted(entry_points(group=ENTRY_POINT_GROUP) if found is None else found, key=lambda point: point.name)
    _refuse_equal_names(points)
    loaded: list[LoadedPlugin] = []
    offline: list[OfflinePlugin] = []
    for point in points:
        distribution, version = _origin(point)
        try:
            answers = _load(manager, point)
        except (Exception, SystemExit) as error:  # a plugin may raise anything; the others run
            offline.append(OfflinePlugin.of(point.name, distribution, version, error))
        else:
            loaded.append(LoadedPlugin(point.name, distribution, version, answers))
    manager.check_pending()
    _refuse_duplicates(loaded)
    return Plugins(
        loaded=tuple(loaded),
        offline=tuple(offline),
        connectors=_registered(loaded, "connector"),
        installers=_registered(loaded, "installer"),
        stores=_registered(loaded, "store"),
        balancers=_registered(loaded, "balancer"),
        spot_notices=_registered(loaded, "spot notice"),
        manager=manager,
    )


def _new_manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("emp_core")
    manager.add_hookspecs(hookspecs)
    return manager


def _load(manager: pluggy.PluginManager, point: EntryPoint) -> Answers:
    plugin = point.load()
    # Tried in a manager of its own first: one that is refused halfway leaves its other hooks behind where it was tried.
    trial = _new_manager()
    trial.register(plugin, name=point.name)
    _refuse_unknown_hooks(trial, point.name)
    answers = ask(trial, point.name)
    manager.register(plugin, name=point.name)
    return answers


def _refuse_unknown_hooks(trial: pluggy.PluginManager, plugin: str) -> None:
    known = [name for name in vars(hookspecs) if name.startswith("emp_")]
    for caller in trial.get_hookcallers(trial.get_plugin(plugin)) or []:
        for impl in caller.get_hookimpls():
            if impl.hookwrapper or impl.wrapper:
                raise PluginError(
                    f"the plugin {plugin} wraps {caller.name}; plugins are called one by one, so there is nothing to wrap"
                )
            if not caller.has_spec() and not impl.optionalhook:
                raise PluginError(
                    f"the plugin {plugin} answers {caller.name}, which is no hook", hint=known_names(caller.name, known)
                )


def _origin(point: EntryPoint) -> tuple[str, str]:
    if point.dist is None:
        return "", ""
    # A damaged installation has neither; the annotations of importlib.metadata do not say so.
    return point.dist.name or "", point.dist.version or ""


def _refuse_equal_names(points: list[EntryPoint]) -> None:
    for one, other in pairwise(points):
        if one.name == other.name:
            raise PluginError(
                f"two installed plugins are named {one.name!r}: {_named(one)} and {_named(other)}",
                hint="uninstall one of the two",
            )


def _named(point: EntryPoint) -> str:
    return f"{point.value} of {' '.join(_origin(point)).strip() or 'an unknown distribution'}"


def _refuse_duplicates(loaded: list[LoadedPlugin]) -> None:
    owners: dict[tuple[str, str], LoadedPlugin] = {}
    duplicates: list[str] = []
    for plugin in loaded:
        for what, name in _claims(plugin.answers):
            first = owners.setdefault((what, name), plugin)
            if first is not plugin:
                duplicates.append(
                    f"the {what} {name!r} comes from both {first.name} ({first.distribution} {first.version}) "
                    f"and {plugin.name} ({plugin.distribution} {plugin.version})"
                )
    if duplicates:
        raise PluginError(
            "; ".join(duplicates), hint="uninstall one of the two plugins", details={"duplicates": duplicates}
        )


def _claims(answers: Answers) -> Iterator[tuple[str, str]]:
    for kind, registrations in answers.registrations.items():
        yield from ((kind, one.name) for one in registrations)
    for section, entries in answers.mapping.items():
        yield from ((f"entry of the mapping's {section}", name) for name in entries)


def _registered(loaded: list[LoadedPlugin], kind: str) -> dict[str, Registered]:
    return {one.name: Registered(plugin.name, one) for plugin in loaded for one in plugin.answers.registrations[kind]}

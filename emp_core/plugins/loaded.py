"""The plugins of an installation, once they are loaded: what they brought, and calling them."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pluggy
from attrs import field, frozen

from emp_core.connectors.base import Connector
from emp_core.errors import PluginError
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import Outcome
from emp_core.log.logger import Logger, get_logger
from emp_core.plugins.answers import Answers, call_hook
from emp_core.plugins.hookspecs import Demo, Registration
from emp_core.plugins.offline import OfflinePlugin, offline_connector

__all__ = ["LoadedPlugin", "PluginListing", "Plugins", "Registered", "known_names"]

_log: Logger = get_logger("emp.plugins")


@frozen
class Registered:
    """Something that a plugin registered, and which plugin it was."""

    plugin: str
    registration: Registration


@frozen
class LoadedPlugin:
    """A plugin in use."""

    name: str
    distribution: str
    version: str
    answers: Answers = field(repr=False)


@frozen
class PluginListing:
    """A plugin as a listing shows it.

    Attributes:
        registers: what it brings, by kind (``connector``, ``store``, ``worker``, ``service`` …); nothing when offline.
        ok: whether it is in use; ``reason`` says why not.
    """

    name: str
    distribution: str
    version: str
    registers: Mapping[str, tuple[str, ...]]
    ok: bool
    reason: str | None = None


@frozen
class Plugins:
    """The plugins of this installation, as `load_plugins` found them.

    Attributes:
        loaded: those in use, by name.
        offline: those that are installed and cannot be used.
        connectors, installers, stores, balancers, spot_notices: what they registered, by the registered name.
    """

    loaded: tuple[LoadedPlugin, ...]
    offline: tuple[OfflinePlugin, ...]
    connectors: Mapping[str, Registered]
    installers: Mapping[str, Registered]
    stores: Mapping[str, Registered]
    balancers: Mapping[str, Registered]
    spot_notices: Mapping[str, Registered]
    _manager: pluggy.PluginManager = field(alias="manager", repr=False)

    def listing(self) -> tuple[PluginListing, ...]:
        """Every plugin, in use or not, by name."""
        listed = [
            PluginListing(p.name, p.distribution, p.version, dict(_what_it_registers(p.answers)), ok=True)
            for p in self.loaded
        ]
        listed += [
            PluginListing(p.name, p.distribution, p.version, {}, ok=False, reason=p.reason) for p in self.offline
        ]
        return tuple(sorted(listed, key=lambda one: one.name))

    def mapping_parts(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """The plugins' parts of the service mapping, by plugin."""
        return {plugin.name: plugin.answers.mapping for plugin in self.loaded if plugin.answers.mapping}

    def settings_classes(self) -> tuple[type, ...]:
        """The plugins' settings classes."""
        return tuple(one for plugin in self.loaded for one in plugin.answers.settings)

    def load_target(self, registered: Registered) -> Any:
        """Import what was registered.

        Raises:
            PluginError: it does not import; names the plugin and the target.
        """
        registration = registered.registration
        try:
            return _import_target(registration.target)
        except (Exception, SystemExit) as error:  # an import runs somebody else's code, which may raise anything
            raise PluginError(
                f"{registration.name} of the plugin {registered.plugin} does not load from {registration.target}: "
                f"{type(error).__name__}: {error}",
                hint=f"install what the plugin {registered.plugin} needs, or tell its authors",
            ) from error

    def connector_class(self, name: str) -> type[Connector]:
        """The connector that is registered as ``name``, imported now.

        One that does not import gives a connector that takes no jobs and says why, so that the worker goes on without it.

        Raises:
            PluginError: no plugin, not even one that is offline, can have it.
        """
        registered = self.connectors.get(name)
        if registered is None:
            offline = self.offline_for(name)
            if offline is None:
                raise PluginError(
                    f"no installed plugin has the connector {name!r}", hint=known_names(name, self.connectors)
                )
            return offline_connector(name, f"the plugin {offline.name} is offline: {offline.reason}")
        try:
            found = self.load_target(registered)
        except PluginError as error:
            return offline_connector(name, str(error), error)
        if not (isinstance(found, type) and issubclass(found, Connector)):
            kind = "is not a subclass of emp_core.Connector"
        elif missing := sorted(getattr(found, "__abstractmethods__", ())):
            kind = f"lacks {', '.join(missing)}"
        else:
            return found
        return offline_connector(
            name, f"{registered.registration.target} of the plugin {registered.plugin} {kind}, as a connector must"
        )

    def offline_for(self, connector: str) -> OfflinePlugin | None:
        """The offline plugin that would have brought this connector, by its name.

        A plugin that did not load cannot tell what it has; by custom its connectors' names begin with its own.
        """
        wanted = _letters(connector)
        fitting = [one for one in self.offline if (own := _letters(one.name)) and wanted.startswith(own)]
        return max(fitting, key=lambda one: len(one.name), default=None)

    def demos(self) -> tuple[Demo, ...]:
        """What the plugins have for ``emp demo``, in the order of the plugins' names. One that raises has none; it is logged."""
        found: list[Demo] = []
        for plugin in self.loaded:
            try:
                answers = call_hook(self._manager, plugin.name, "emp_demo")
            except Exception:  # a plugin may raise anything, and the others' demos run
                _log.exception("plugin failed in emp_demo", plugin=plugin.name)
            else:
                found += (answer for answer in answers if isinstance(answer, Demo))
        return tuple(found)

    def job_finished(self, job: Job, outcome: Outcome) -> None:
        """Tell every plugin that an outcome was recorded. What one of them raises is logged, and the others are told."""
        if not self._manager.hook.emp_job_finished.get_hookimpls():
            return  # by far the most common case, asked for every job
        for plugin in self.loaded:
            try:
                call_hook(self._manager, plugin.name, "emp_job_finished", job=job, outcome=outcome)
            except Exception:  # a plugin may raise anything, and the job is finished whatever it does
                _log.exception("plugin failed in emp_job_finished", plugin=plugin.name, job=job.id)


def _what_it_registers(answers: Answers) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Kinds, and the names that a plugin brings of each."""
    for kind, registrations in answers.registrations.items():
        if registrations:
            yield kind, tuple(one.name for one in registrations)
    for section, kind in (("workers", "worker"), ("services", "service")):
        if entries := answers.mapping.get(section):
            yield kind, tuple(entries)


def _import_target(target: str) -> Any:
    module, _, path = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def known_names(name: str, known: Iterable[str]) -> str:
    """A hint for a name that is not known: the close one, or all of them."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known are {', '.join(names)}" if names else "none is known"

"""Installing the services of a plan."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from attrs import define, evolve, field

from emp_core.errors import ConfigError, InstallError
from emp_core.plugins.loaded import Plugins
from emp_core.services.installer import Installer, InstallEvent, InstallEventKind
from emp_core.services.installing import dry_run, install
from emp_machine.plan.model import MachinePlan, ServicePlan
from emp_machine.processes.remains import MARK, end_remains
from emp_machine.steps.records import read_record, write_record

__all__ = ["Tell", "alone", "dry_run_services", "install_services", "installed_file"]

Tell = Callable[[str, InstallEvent], None]
"""Told of everything that happens, with the service's name, at once; must return at once."""

_SILENT = frozenset({InstallEventKind.PROGRESS})


def installed_file(root: Path) -> Path:
    """The lock file: what was fetched for each service, so exactly that it can be fetched again."""
    return root / "installed.json"


def dry_run_services(plan: MachinePlan, plugins: Plugins, *, only: Collection[str] = ()) -> Iterator[str]:
    """What `install_services` would do, line by line; changes nothing.

    Raises:
        ConfigError: ``only`` names a service that is not installed here.
    """
    for service in _chosen(plan, only):
        yield f"# {service.name}, in {service.folder}"
        yield from dry_run(_installer(service, plugins))


async def install_services(
    plan: MachinePlan,
    plugins: Plugins,
    tell: Tell = lambda _service, _event: None,
    *,
    only: Collection[str] = (),
    again: bool = False,
) -> None:
    """Bring the services of a plan to where they can be started, in the plan's order.

    A service that fails does not keep the others from being installed. What was installed and verified before, and is
    still there, is not started again to be verified. Commands that an installation left running when it was killed are ended
    first.

    Args:
        only: names of services; empty: all.
        again: do the steps that are done, too: branches go to their newest commit.

    Raises:
        ConfigError: ``only`` names a service that is not installed here, or a service's entry cannot be used.
        InstallError: services could not be installed; or another process installs here now.
    """
    failed: dict[str, InstallError] = {}
    chosen = _chosen(plan, only)
    with alone(plan.root):
        await end_remains(_remains_of(plan.root))
        for process in plan.processes:  # so that whatever starts them finds their folders
            process.log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for service in chosen:
            installer = _installer(_marked(service, plan.root), plugins)
            with _Journal.opened(plan.root, service.name, tell) as journal:
                try:
                    await _install(installer, service, journal, again=again)
                except InstallError as error:
                    journal.line(f"failed: {error.message}")
                    failed[service.name] = error
    if len(failed) == 1:
        raise next(iter(failed.values()))
    if failed:
        raise InstallError(
            f"{len(failed)} services could not be installed: " + "; ".join(error.message for error in failed.values()),
            hint="each has a log of its own: logs/install-NAME.log",
            details={"services": {name: error.as_dict() for name, error in failed.items()}},
        )


async def _install(installer: Installer, service: ServicePlan, journal: "_Journal", *, again: bool) -> None:
    for instance in service.instances:
        instance.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    service.folder.mkdir(parents=True, exist_ok=True)
    if not again and journal.was_verified(service):
        steps = installer.steps()
        if all([await step.is_done() for step in steps]):
            for step in steps:
                journal.tell(InstallEvent(InstallEventKind.SKIPPED, step.name))
            return
    journal.begin(service)
    await install(installer, journal.tell, again=again)
    journal.verified(service)


def _remains_of(root: Path) -> Path:
    """What installations mark their commands with: not the root itself, which stands for the processes of the plan."""
    return root / "installing"


def _marked(service: ServicePlan, root: Path) -> ServicePlan:
    """The service, with an environment by which its commands are known again."""
    environ = {**service.config.environ, MARK: f"{service.name}@{_remains_of(root)}"}
    return evolve(service, config=evolve(service.config, environ=environ))


def _chosen(plan: MachinePlan, only: Collection[str]) -> tuple[ServicePlan, ...]:
    here = tuple(service for service in plan.services if service.installer is not None)
    if unknown := sorted(set(only) - {service.name for service in here}):
        raise ConfigError(
            f"nothing is installed here for {', '.join(unknown)}",
            hint=f"services that are installed here: {', '.join(service.name for service in here) or 'none'}",
        )
    return tuple(service for service in here if not only or service.name in only)


def _installer(service: ServicePlan, plugins: Plugins) -> Installer:
    made = plugins.load_target(plugins.installers[str(service.installer)])(service.config, service.folder)
    if not isinstance(made, Installer):
        raise ConfigError(f"{service.installer} is not a subclass of Installer")
    return made


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Let nobody else install here meanwhile. Whoever is killed lets go.

    Raises:
        InstallError: another process installs here now.
    """
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = root / "installing.lock"
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = file.read_text().strip() or "another process"
            raise InstallError(f"{holder} installs in {root} now", hint="wait until it is done, or stop it") from error
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@define
class _Journal:
    """What happens to one service: told, logged, and what was fetched put into the lock file."""

    _file: Path
    _service: str
    _tell: Tell
    _log: IO[str]
    _fetched: dict[str, str] = field(factory=dict)

    @classmethod
    @contextmanager
    def opened(cls, root: Path, service: str, tell: Tell) -> Iterator["_Journal"]:
        """With its log open."""
        logs = root / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        with (logs / f"install-{service}.log").open("a", encoding="utf-8") as log:
            yield cls(installed_file(root), service, tell, log)

    def tell(self, event: InstallEvent) -> None:
        """Pass on what happens."""
        if event.kind is InstallEventKind.FETCHED:
            self._fetched[event.text] = event.pin
            entry = self._entry()
            self._note({**entry, "fetched": {**entry.get("fetched", {}), **self._fetched}})
        if event.kind not in _SILENT:
            self.line(f"{event.kind} {event.step}: {event.text} {event.pin}".rstrip(": "))
        self._tell(self._service, event)

    def line(self, text: str) -> None:
        """Put a line into the log."""
        self._log.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")
        self._log.flush()

    def was_verified(self, service: ServicePlan) -> bool:
        """Whether this installer was brought to its end in this folder, with the same options."""
        return bool(self._entry().get("verified_at")) and self._entry().get("asked") == _asked(service)

    def begin(self, service: ServicePlan) -> None:
        """From now on it is not verified."""
        self._note({**self._entry(), "asked": _asked(service), "verified_at": None})

    def verified(self, service: ServicePlan) -> None:
        """It is at its end."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        self._note({**self._entry(), "asked": _asked(service), "verified_at": at})

    def _entry(self) -> dict[str, Any]:
        entry = read_record(self._file).get(self._service, {})
        return entry if isinstance(entry, dict) else {}

    def _note(self, entry: Mapping[str, object]) -> None:
        write_record(self._file, {**read_record(self._file), self._service: dict(entry)})


def _asked(service: ServicePlan) -> str:
    """What was asked for, as a checksum: addresses may hold passwords."""
    asked = json.dumps([service.installer, dict(service.entry.installer_config)], sort_keys=True, default=str)
    return hashlib.sha256(asked.encode()).hexdigest()

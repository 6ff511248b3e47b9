"""What `emp doctor` checks of the services: the mapping, WORKERS, and each service through its own connector."""

from collections.abc import AsyncIterator, Mapping

import anyio

from emp_core.cli.checks import Check, State, failed
from emp_core.config import Settings
from emp_core.connectors.base import Connector
from emp_core.errors import ConfigError, EmpError
from emp_core.plugins.loaded import Plugins
from emp_core.services.resolve import ServiceBinding, load_mapping, resolve_workers

__all__ = ["check_services"]

_LIMIT_S = 10.0


async def check_services(settings: Settings, plugins: Plugins, environ: Mapping[str, str]) -> AsyncIterator[Check]:
    """The mapping, then what WORKERS asks of it, then whether those services are there."""
    try:
        mapping = load_mapping(settings, plugins, environ)
    except ConfigError as error:
        yield failed("mapping", error)
        return
    source = "what the plugins bring" if mapping.source == "plugins" else mapping.source
    unusable = tuple(problem for problems in mapping.unusable.values() for problem in problems)
    state = State.WARN if unusable else State.OK
    yield Check("mapping", state, f"{source}; worker types: {', '.join(sorted(mapping.workers))}", problems=unusable)
    if not settings.workers:
        known = next(iter(sorted(mapping.workers)), "echo")
        hint = f"set it to run workers here, for example WORKERS={known}; commands that submit jobs do not need it"
        yield Check("workers", State.WARN, "WORKERS is not set, so no service is checked", hint)
        return
    try:
        plans = resolve_workers(settings.workers, mapping, plugins, environ)
    except ConfigError as error:
        yield failed("workers", error)
        return
    yield Check("workers", State.OK, ", ".join(plan.worker_type for plan in plans))
    bindings = {binding.service: binding for plan in plans for binding in plan.services}
    for binding in bindings.values():
        yield await _check_service(binding, plugins)


async def _check_service(binding: ServiceBinding, plugins: Plugins) -> Check:
    name = f"service {binding.service}"
    try:
        connector = plugins.connector_class(binding.connector).for_service(binding.config)
    except EmpError as error:
        return failed(name, error)
    except Exception as error:  # a connector is somebody else's code, which may raise anything
        return Check(name, State.FAIL, f"its connector cannot be made: {type(error).__name__}: {error}")
    try:
        with anyio.fail_after(_LIMIT_S):
            return await _asked(name, binding, connector)
    except TimeoutError:
        hint = "see whether it runs, and whether its host and port are right"
        return Check(name, State.FAIL, f"it did not answer within {_LIMIT_S:g} s", hint, unreached=True)
    except EmpError as error:
        return failed(name, error)
    except Exception as error:  # the same
        return Check(name, State.FAIL, f"its connector failed: {type(error).__name__}: {error}")


async def _asked(name: str, binding: ServiceBinding, connector: Connector) -> Check:
    try:
        await connector.connect()
        health = await connector.check_health()
        if not health.ok:
            hint = "a worker waits for it and takes it up when it is healthy"
            return Check(name, State.FAIL, health.reason or "it says that it is not healthy", hint, unreached=True)
        info = await connector.get_service_info()
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(2):
            await connector.disconnect()
    models = "" if info.models is None else f", {len(info.models)} models"
    return Check(name, State.OK, f"{binding.connector} reaches it: version {info.version or 'unknown'}{models}")

"""What this package brings to emp-core. Cheap to import: the connector is imported when a worker needs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from emp_core import Registration, hookimpl

from emp_shout.settings import ShoutSettings

__all__ = ["emp_register_connectors", "emp_service_mapping", "emp_settings"]


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The connector, by the name that the mapping below calls it."""
    return (
        Registration(
            "ShoutConnector",
            "emp_shout.connector:ShoutConnector",
            "The shout service over HTTP",
        ),
    )


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type and the service: `WORKERS=shout` runs it."""
    return {
        "workers": {
            "shout": {"services": ["shout"]},
        },
        "services": {
            "shout": {
                "connector": "ShoutConnector",
                "type": "external_service",
            },
        },
    }


@hookimpl
def emp_settings() -> Sequence[type]:
    """The variables that this plugin reads."""
    return (ShoutSettings,)

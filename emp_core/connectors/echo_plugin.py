"""The echo service as a plugin: hook implementations only, so that listing plugins imports no connector."""

from collections.abc import Mapping, Sequence
from typing import Any

from emp_core.plugins.hookspecs import Registration, hookimpl


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The echo connector."""
    return (
        Registration(
            "EchoConnector",
            "emp_core.connectors.echo:EchoConnector",
            "Gives every payload back: for trying things out, needs no service",
        ),
    )


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type ``echo``."""
    return {
        "workers": {
            "echo": {
                "services": ["echo"],
                "is_gpu_bound": False,
                "job_service_required_map": [{"job_service_required": "echo", "worker_service": "echo"}],
            }
        },
        "services": {"echo": {"connector": "EchoConnector", "type": "external_service", "is_gpu_bound": False}},
    }

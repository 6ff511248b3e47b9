"""What emp-openai brings to emp-core. Cheap to import: the connector itself is imported when a worker needs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from emp_core.plugins.hookspecs import Registration, hookimpl
from emp_openai.settings import OpenAISettings

__all__ = ["emp_register_connectors", "emp_service_mapping", "emp_settings"]

CONNECTOR = "OpenAIConnector"
_ACCEPTED = ("openai", "openai_text", "openai_image", "openai_img2img", "openai_responses", "openai_embeddings")


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The connector to OpenAI, and to all that speak its API."""
    return (Registration(CONNECTOR, f"emp_openai.connector:{CONNECTOR}", "OpenAI and servers that speak its API"),)


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type and the service ``openai``, and the names by which jobs may require it."""
    return {
        "workers": {
            "openai": {
                "services": ["openai"],
                "is_gpu_bound": False,
                "job_service_required_map": [
                    {"job_service_required": name, "worker_service": "openai"} for name in _ACCEPTED
                ],
            }
        },
        "services": {"openai": {"connector": CONNECTOR, "type": "external_api", "is_gpu_bound": False}},
        "connectors": {CONNECTOR: {"path": "./redis-direct-worker.js", "description": "OpenAI's API over HTTP"}},
    }


@hookimpl
def emp_settings() -> Sequence[type]:
    """The plugin's variables."""
    return (OpenAISettings,)

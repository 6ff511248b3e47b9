"""What emp-ollama brings to emp-core. Cheap to import: the connector itself is imported when a worker needs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from emp_core.plugins.hookspecs import Registration, hookimpl
from emp_ollama.settings import OllamaSettings

__all__ = ["emp_register_connectors", "emp_register_installers", "emp_service_mapping", "emp_settings"]

CONNECTOR = "OllamaConnector"
INSTALLER = "OllamaDaemonInstaller"
_ACCEPTED = ("ollama", "text_generation", "chat_completion", "embeddings")


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The connector to an Ollama server."""
    return (Registration(CONNECTOR, f"emp_ollama.connector:{CONNECTOR}", "Ollama over its own API"),)


@hookimpl
def emp_register_installers() -> Sequence[Registration]:
    """What puts the service on a machine; needs emp-machine."""
    return (Registration(INSTALLER, f"emp_ollama.installer:{INSTALLER}", "Ollama and its models, without root"),)


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type and the service ``ollama``, and the names by which jobs may require it."""
    return {
        "workers": {
            "ollama": {
                "services": ["ollama"],
                "is_gpu_bound": False,
                "job_service_required_map": [
                    {"job_service_required": name, "worker_service": "ollama"} for name in _ACCEPTED
                ],
            }
        },
        "services": {
            "ollama": {
                "connector": CONNECTOR,
                "type": "daemon_service",
                "installer": INSTALLER,
                "is_gpu_bound": False,
                "ports": ["${OLLAMA_BASE_PORT:-11434}"],
                "installer_config": {
                    "version": "${OLLAMA_VERSION:-0.18.2}",
                    "binary": "${OLLAMA_BINARY:-}",
                    "default_model": "${OLLAMA_DEFAULT_MODEL:-llama3.2:1b}",
                    "models": "${OLLAMA_PULL_MODELS:-}",
                },
            }
        },
        "connectors": {CONNECTOR: {"path": "./redis-direct-worker.js", "description": "Ollama over its own API"}},
    }


@hookimpl
def emp_settings() -> Sequence[type]:
    """The plugin's variables."""
    return (OllamaSettings,)

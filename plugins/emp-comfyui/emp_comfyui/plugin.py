"""What emp-comfyui brings to emp-core. Cheap to import: the connector itself is imported when a worker needs it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from emp_comfyui.cluster.settings import ClusterSettings
from emp_comfyui.demo import demo
from emp_comfyui.settings import ComfyUIRemoteSettings, ComfyUISettings
from emp_core.plugins.hookspecs import Demo, Registration, hookimpl

if TYPE_CHECKING:
    import click

__all__ = [
    "emp_add_commands",
    "emp_demo",
    "emp_register_connectors",
    "emp_register_installers",
    "emp_service_mapping",
    "emp_settings",
]

CONNECTOR = "ComfyUIWebSocketConnector"
INSTALLER = "ComfyUIManagementClient"
REMOTE = "ComfyUIRemoteConnector"


@hookimpl
def emp_register_connectors() -> Sequence[Registration]:
    """The connectors to a ComfyUI server."""
    return (
        Registration(CONNECTOR, f"emp_comfyui.connector:{CONNECTOR}", "ComfyUI over HTTP and its web socket"),
        Registration(REMOTE, f"emp_comfyui.connector:{REMOTE}", "a ComfyUI server elsewhere"),
    )


@hookimpl
def emp_register_installers() -> Sequence[Registration]:
    """What puts the service on a machine; needs emp-machine."""
    return (Registration(INSTALLER, f"emp_comfyui.installer:{INSTALLER}", "ComfyUI, its custom nodes and its models"),)


@hookimpl
def emp_service_mapping() -> Mapping[str, Any]:
    """The worker type and the service ``comfyui``, and ``comfyui-remote``, which takes the same jobs."""
    return {
        "workers": {
            "comfyui": {
                "services": ["comfyui"],
                "is_gpu_bound": True,
                "job_service_required_map": [{"job_service_required": "comfyui", "worker_service": "comfyui"}],
            },
            "comfyui-remote": {
                "services": ["comfyui-remote"],
                "is_gpu_bound": False,
                "job_service_required_map": [
                    {"job_service_required": "comfyui", "worker_service": "comfyui-remote"},
                    {"job_service_required": "comfyui-remote", "worker_service": "comfyui-remote"},
                ],
            },
        },
        "services": {
            "comfyui": {
                "connector": CONNECTOR,
                "type": "pm2_service",
                "installer": INSTALLER,
                "installer_filename": "./services/comfyui-management-client.js",
                "is_gpu_bound": True,
                "service_instances_per_gpu": "${COMFYUI_INSTANCES_PER_GPU:-1}",
                "ports": ["${COMFYUI_BASE_PORT:-8188}"],
                "port_increment": "${COMFYUI_PORT_INCREMENT:-1}",
                "installer_config": {
                    "repo_url": "${COMFYUI_REPO_URL:-https://github.com/stakeordie/ComfyUI.git}",
                    "branch": "${COMFYUI_BRANCH:-main}",
                    "custom_nodes_enabled": "${COMFYUI_ENABLE_CUSTOM_NODES:-true}",
                    "custom_nodes": "${COMFYUI_CUSTOM_NODES:-}",
                    "models": "${COMFYUI_MODELS:-}",
                    "pip_options": "${COMFYUI_PIP_OPTIONS:-}",
                    "args": "${COMFYUI_ARGS:-}",
                },
            },
            "comfyui-remote": {"connector": REMOTE, "type": "external_service", "is_gpu_bound": False},
        },
        "connectors": {
            CONNECTOR: {"path": "./redis-direct-worker.js", "description": "Local ComfyUI WebSocket connector"},
            REMOTE: {"path": "./redis-direct-worker.js", "description": "Remote ComfyUI WebSocket connector"},
        },
    }


@hookimpl
def emp_settings() -> Sequence[type]:
    """The plugin's variables."""
    return (ComfyUISettings, ComfyUIRemoteSettings, ClusterSettings)


@hookimpl
def emp_demo() -> Demo:
    """Text to image, without a GPU."""
    return demo()


@hookimpl
def emp_add_commands(cli: "click.Group") -> None:
    """``emp comfyui``."""
    from emp_comfyui.commands.comfyui import comfyui

    cli.add_command(comfyui)

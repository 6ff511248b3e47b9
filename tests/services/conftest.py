"""Plugins as the service mapping sees them, and the mapping of the format's documentation."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from attrs import field, frozen

from emp_core.plugins.offline import OfflinePlugin

EXAMPLE = r"""
{
  "workers": {
    "comfyui": {
      "services": ["comfyui"],
      "is_gpu_bound": true,
      "job_service_required_map": [
        {
          "job_service_required": "comfyui",
          "worker_service": "comfyui"
        }
      ]
    }
  },
  "services": {
    "comfyui": {
      "connector": "ComfyUIWebSocketConnector",
      "type": "pm2_service",
      "installer": "ComfyUIManagementClient",
      "installer_filename": "./services/comfyui-management-client.js",
      "is_gpu_bound": true,
      "service_instances_per_gpu": "${COMFYUI_INSTANCES_PER_GPU:-1}",
      "ports": ["${COMFYUI_BASE_PORT:-8188}"],
      "port_increment": "${COMFYUI_PORT_INCREMENT:-1}",
      "installer_config": {
        "repo_url": "${COMFYUI_REPO_URL:-https://github.com/stakeordie/ComfyUI.git}",
        "branch": "${COMFYUI_BRANCH:-main}",
        "custom_nodes_enabled": "${COMFYUI_ENABLE_CUSTOM_NODES:-true}"
      }
    }
  },
  "connectors": {
    "ComfyUIWebSocketConnector": {
      "path": "./redis-direct-worker.js",
      "description": "Local ComfyUI WebSocket connector"
    }
  }
}
"""


@frozen
class FakePlugins:
    connectors: Mapping[str, Any] = field(factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(factory=dict)
    offline: Sequence[OfflinePlugin] = ()

    def mapping_parts(self) -> Mapping[str, Mapping[str, Any]]:
        return self.parts

    def offline_for(self, connector: str) -> OfflinePlugin | None:
        return next((one for one in self.offline if connector.lower().startswith(one.name)), None)


MakePlugins = Callable[..., FakePlugins]


@pytest.fixture
def make_plugins() -> MakePlugins:
    """Makes plugins: connectors by name, parts of the mapping by plugin, names of offline ones."""

    def make(
        *connectors: str, parts: Mapping[str, Mapping[str, Any]] | None = None, offline: Sequence[str] = ()
    ) -> FakePlugins:
        gone = [OfflinePlugin.of(name, f"emp-{name}", "1", ImportError("no torch")) for name in offline]
        return FakePlugins(dict.fromkeys(connectors), parts or {}, gone)

    return make


@pytest.fixture
def example() -> str:
    """The documented example, word by word."""
    return EXAMPLE


@pytest.fixture
def example_part() -> Mapping[str, Any]:
    """The documented example as a plugin brings it."""
    part: Mapping[str, Any] = json.loads(EXAMPLE)
    return part

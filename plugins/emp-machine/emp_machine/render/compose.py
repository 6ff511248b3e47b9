"""``docker-compose.yml`` (https://github.com/compose-spec/compose-spec), for the images of `emp_machine.render.docker`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from emp_machine.plan.model import MachinePlan
from emp_machine.render.containers import (
    DATA,
    FILES,
    GID,
    HEALTHY,
    UID,
    Container,
    containers,
    grace_s,
    is_loopback,
    target_of,
)
from emp_machine.render.files import RenderedFile

__all__ = ["render"]

_REDIS_IMAGE = "redis:7.4-alpine"
_SECRETS = "secrets.env"
"""Not ``.env``: that is the file that the plan itself is made from."""

_LOGS = {"driver": "json-file", "options": {"max-size": "20m", "max-file": "3"}}


def render(plan: MachinePlan, folder: Path, *, per_gpu: bool = False) -> tuple[RenderedFile, ...]:  # noqa: ARG001 - what all renderers are given
    """``docker-compose.yml``, and ``secrets.env`` with the secrets that it reads.

    Services listen on all addresses inside the containers' own network, and on the host's loopback alone outside of it.

    Args:
        per_gpu: a container for each GPU instead of one for all.
    """
    made = containers(plan, per_gpu=per_gpu)
    document: dict[str, Any] = {
        "name": "emp",
        "services": {
            **({"redis": _redis()} if plan.own_redis else {}),
            **{one.name: _service(one, plan) for one in made},
        },
        "volumes": {**({"redis": {}} if plan.own_redis else {}), **{_volume(one): {} for one in made}},
    }
    text = yaml.safe_dump(document, sort_keys=False, width=120)
    secrets = {name: plan.environ[name] for one in made for name in one.secrets if name in plan.environ}
    return (
        RenderedFile(Path("docker-compose.yml"), _head(plan) + text),
        RenderedFile(Path(_SECRETS), _secrets(secrets), private=True),
    )


def _head(plan: MachinePlan) -> str:
    head = "# Written by emp machine render compose: write it again rather than change it.\n"
    url = plan.environ.get("HUB_REDIS_URL", "")
    if not plan.own_redis and is_loopback(url):
        head += (
            "# HUB_REDIS_URL names this machine itself, which a container takes for its own: where Redis runs on the host, call\n"
            "# it host.docker.internal, let Redis listen there, and write this file again.\n"
        )
    return head


def _secrets(secrets: Mapping[str, str]) -> str:
    lines = [f"{name}={_quoted(value)}" for name, value in sorted(secrets.items())]
    return "\n".join(["# Written by emp machine render compose, for docker-compose.yml.", *lines, ""])


def _quoted(value: str) -> str:
    """A value as Compose reads it: between single quotes nothing but backslashes is special, between double quotes ``$``
    and escapes are (https://docs.docker.com/reference/compose-file/services/#env_file).
    """
    if not set("'\\") & set(value):
        return f"'{value}'"
    for special in ("\\", '"', "$"):
        value = value.replace(special, f"\\{special}")
    return '"' + value.replace("\n", "\\n").replace("\r", "\\r") + '"'


def _service(one: Container, plan: MachinePlan) -> dict[str, Any]:
    environment = {name: _literal(value) for name, value in one.environ.items()}
    if plan.own_redis:
        environment["HUB_REDIS_URL"] = "redis://redis:6379"
    volumes: list[dict[str, Any]] = [
        {"type": "volume", "source": _volume(one), "target": DATA},
        # Not a tmpfs: pip unpacks gigabytes there, and runs what it builds.
        {"type": "volume", "target": "/tmp"},  # noqa: S108 - the container's own
    ]
    for name, file in one.files.items():
        source = _literal(str(Path(file).expanduser().absolute()))
        volumes.append({"type": "bind", "source": source, "target": FILES[name], "read_only": True})
    return {
        "build": {"context": ".", "dockerfile": "Dockerfile", "target": target_of(one)},
        "environment": environment,
        "env_file": [_SECRETS],
        **({"ports": [f"127.0.0.1:{host}:{inside}" for host, inside in one.ports]} if one.ports else {}),
        "volumes": volumes,
        **({"depends_on": {"redis": {"condition": "service_healthy"}}} if plan.own_redis else {}),
        "extra_hosts": ["host.docker.internal:host-gateway"],
        **_confined(),
        "user": f"{UID}:{GID}",
        "shm_size": "2gb",
        "pids_limit": 8192,
        "deploy": {"resources": _resources(one)},
        "healthcheck": {
            "test": ["CMD", *HEALTHY],
            "interval": "30s",
            "timeout": "15s",
            "retries": 3,
            "start_period": "30m",  # installing takes its time
        },
        "stop_signal": "SIGTERM",
        "stop_grace_period": f"{grace_s(plan)}s",
        "restart": "unless-stopped",
        "logging": _LOGS,
    }


def _resources(one: Container) -> dict[str, Any]:
    devices = [{"driver": "nvidia", "device_ids": [str(gpu) for gpu in one.gpus], "capabilities": ["gpu"]}]
    return {
        "limits": {"memory": "${MEMORY_LIMIT:-64g}"},
        **({"reservations": {"devices": devices}} if one.gpus else {}),
    }


def _redis() -> dict[str, Any]:
    return {
        "image": _REDIS_IMAGE,
        "command": ["redis-server", "--appendonly", "yes", "--maxmemory-policy", "noeviction"],
        "volumes": [{"type": "volume", "source": "redis", "target": "/data"}],
        **_confined(),
        "user": "999:1000",
        "deploy": {"resources": {"limits": {"memory": "${REDIS_MEMORY_LIMIT:-4g}"}}},
        "healthcheck": {"test": ["CMD", "redis-cli", "ping"], "interval": "5s", "timeout": "3s", "retries": 10},
        "stop_grace_period": "30s",
        "restart": "unless-stopped",
        "logging": _LOGS,
    }


def _confined() -> dict[str, Any]:
    return {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}


def _volume(one: Container) -> str:
    return f"{one.name}-data"


def _literal(text: str) -> str:
    """Compose replaces ``$NAME``."""
    return text.replace("$", "$$")

"""A Deployment for Kubernetes, and a ScaledObject for KEDA that adds machines while jobs wait.

KEDA's redis scaler counts the members of a sorted set as it does those of a list
(https://keda.sh/docs/latest/scalers/redis-lists/).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

import yaml

from emp_core.queue.keys import Keys
from emp_machine.errors import MachineError
from emp_machine.plan.model import MachinePlan
from emp_machine.render.containers import (
    DATA,
    FILES,
    GID,
    HEALTHY,
    UID,
    Container,
    grace_s,
    is_loopback,
    pod,
    target_of,
)
from emp_machine.render.files import RenderedFile

__all__ = ["render"]

_NAME = "emp-worker"
_SECRET = "emp-worker"  # noqa: S105 - the name of an object
_FILES = "emp-worker-files"
_LABELS = {"app.kubernetes.io/name": _NAME, "app.kubernetes.io/part-of": "emp"}
_JOBS_PER_MACHINE = "5"
_NOT_A_TAG = re.compile(r"[^a-z0-9-]+")


def render(plan: MachinePlan, folder: Path) -> tuple[RenderedFile, ...]:  # noqa: ARG001 - what all renderers are given
    """``deployment.yaml``, ``scaledobject.yaml``, and ``secret.yaml`` with what must not be read by everybody.

    A pod is a machine: it has the plan's workers for one GPU, and those that are bound to none, and is named after itself.
    Files that variables name are read, and stand in the secret.

    Raises:
        MachineError: the plan's Redis is on the machine itself: pods would not find it; or a file cannot be read.
    """
    url = plan.environ.get("HUB_REDIS_URL", "")
    if plan.own_redis or is_loopback(url):
        raise MachineError(
            "pods need a Redis that all of them can reach, and HUB_REDIS_URL names this machine, or is not set",
            hint="set HUB_REDIS_URL to the address that Redis has in the cluster",
        )
    made = pod(plan)
    return (
        RenderedFile(Path("deployment.yaml"), _text(_deployment(made, plan))),
        RenderedFile(Path("scaledobject.yaml"), _text(_authentication(url), _scaled(url, plan))),
        RenderedFile(Path("secret.yaml"), _text(_secret(made, url, plan), *_files(made)), private=True),
    )


def _parts(url: str) -> SplitResult:
    return urlsplit(url.replace("+sentinel", "", 1).replace("+cluster", "", 1))


def _text(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False, width=120)


def _deployment(one: Container, plan: MachinePlan) -> dict[str, Any]:
    environ = {name: value for name, value in one.environ.items() if name != "MACHINE_ID"}
    own_name = {"name": "MACHINE_ID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    gpus: dict[str, Any] = {"nvidia.com/gpu": len(one.gpus)} if one.gpus else {}
    check: dict[str, Any] = {"exec": {"command": list(HEALTHY)}, "periodSeconds": 30, "timeoutSeconds": 15}
    image = {
        "image": f"emp-{_NOT_A_TAG.sub('-', target_of(one))}:latest",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    # An empty volume hides what was installed into the image (PREINSTALL), so it is filled from there first.
    fill: dict[str, Any] = {
        "name": "preinstalled",
        **image,
        "command": ["cp", "--archive", f"{DATA}/home", f"{DATA}/machine", "/volume/"],
        "volumeMounts": [{"name": "data", "mountPath": "/volume"}],
    }
    container: dict[str, Any] = {
        "name": "worker",
        **image,
        "env": [*({"name": name, "value": value} for name, value in environ.items()), own_name],
        "envFrom": [{"secretRef": {"name": _SECRET}}],
        **({"ports": [{"containerPort": inside} for _, inside in one.ports]} if one.ports else {}),
        "resources": {
            "requests": {"cpu": "2", "memory": "8Gi", "ephemeral-storage": "20Gi"},
            "limits": {"memory": "64Gi", **gpus},
        },
        # Installing takes its time; what runs after that and is unwell is started again by the machine layer itself.
        "startupProbe": check | {"failureThreshold": 120},
        "readinessProbe": check,
        "volumeMounts": [
            {"name": "data", "mountPath": DATA},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the container's own
            *({"name": "files", "mountPath": FILES[name], "subPath": name} for name in one.files),
        ],
    }
    files = [{"name": "files", "secret": {"secretName": _FILES}}] if one.files else []
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": _NAME, "labels": _LABELS},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": _LABELS},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {
                "metadata": {"labels": _LABELS},
                "spec": {
                    "automountServiceAccountToken": False,
                    "terminationGracePeriodSeconds": grace_s(plan),
                    "securityContext": {
                        "runAsNonRoot": True,
                        "runAsUser": UID,
                        "runAsGroup": GID,
                        "fsGroup": GID,
                        "seccompProfile": {"type": "RuntimeDefault"},
                    },
                    "initContainers": [fill],
                    "containers": [container],
                    "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}, *files],
                },
            },
        },
    }


def _secret(one: Container, url: str, plan: MachinePlan) -> dict[str, Any]:
    parts = _parts(url)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _SECRET, "labels": _LABELS},
        "type": "Opaque",
        "stringData": {
            **{name: plan.environ[name] for name in one.secrets if name in plan.environ},
            "KEDA_REDIS_USERNAME": unquote(parts.username or ""),
            "KEDA_REDIS_PASSWORD": unquote(parts.password or ""),
        },
    }


def _files(one: Container) -> Iterator[dict[str, Any]]:
    if not one.files:
        return
    try:
        texts = {name: Path(file).expanduser().read_text(encoding="utf-8-sig") for name, file in one.files.items()}
    except (OSError, UnicodeDecodeError) as error:
        raise MachineError(f"a file that pods need cannot be read: {error}") from error
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": _FILES, "labels": _LABELS},
        "type": "Opaque",
        "stringData": texts,
    }


def _authentication(url: str) -> dict[str, Any]:
    parts = _parts(url)
    wanted = [
        *([("username", "KEDA_REDIS_USERNAME")] if parts.username else []),
        *([("password", "KEDA_REDIS_PASSWORD")] if parts.password else []),
    ]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": _NAME, "labels": _LABELS},
        "spec": {"secretTargetRef": [{"parameter": name, "name": _SECRET, "key": key} for name, key in wanted]},
    }


def _scaled(url: str, plan: MachinePlan) -> dict[str, Any]:
    parts = _parts(url)
    addresses = parts.netloc.rpartition("@")[2]
    where = "address"
    kind = "redis"
    path = [part for part in parts.path.split("/") if part]
    more: dict[str, str] = {}
    if "+sentinel://" in url:
        kind, where = "redis-sentinel", "addresses"
        more = {"sentinelMaster": path[0] if path else "mymaster"}
        path = path[1:]
    elif "+cluster://" in url:
        kind, where = "redis-cluster", "addresses"
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": _NAME, "labels": _LABELS},
        "spec": {
            "scaleTargetRef": {"name": _NAME},
            "minReplicaCount": 0,
            "maxReplicaCount": 10,
            # A machine is not taken away in the middle of what it has just begun; and those that go drain.
            "cooldownPeriod": 600,
            "triggers": [
                {
                    "type": kind,
                    "metadata": {
                        where: addresses,
                        **more,
                        "listName": Keys(plan.environ.get("EMP_NAMESPACE", "")).fixed("pending"),
                        "listLength": _JOBS_PER_MACHINE,
                        "databaseIndex": path[0] if path else "0",
                        "enableTLS": "true" if url.startswith("rediss") else "false",
                    },
                    "authenticationRef": {"name": _NAME},
                }
            ],
        },
    }

"""A pod is a machine for one GPU, and there are as many as jobs ask for."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from emp_machine.errors import MachineError
from emp_machine.render import kubernetes

from .test_compose import HUB, planned


def rendered(tmp_path: Path, **environ: str) -> dict[str, list[dict[str, Any]]]:
    files = kubernetes.render(planned(2, mock=False, **environ), tmp_path)
    return {one.path.name: list(yaml.safe_load_all(one.text)) for one in files}


def test_the_objects_are_valid_by_kubernetes_own_schemas(tmp_path: Path) -> None:
    files = rendered(tmp_path)
    for name in ("deployment.yaml", "secret.yaml"):
        for document in files[name]:
            kubernetes_validate.validate(document, "1.31", strict=True)


def test_a_pod_has_one_gpu_and_is_named_after_itself(tmp_path: Path) -> None:
    [deployment] = rendered(tmp_path, WORKERS="comfyui")["deployment.yaml"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    environ = {one["name"]: one for one in container["env"]}
    assert environ["NUM_GPUS"]["value"] == "1"
    assert environ["MACHINE_ID"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert pod["terminationGracePeriodSeconds"] > 30


def test_a_pod_has_the_workers_of_one_gpu_and_those_of_none(tmp_path: Path) -> None:
    environ = {"WORKERS": "comfyui,ollama:2,openai", "OPENAI_API_KEY": "x", "COMFYUI_INSTANCES_PER_GPU": "2"}
    [deployment] = rendered(tmp_path, **environ)["deployment.yaml"]
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    said = {one["name"]: one.get("value") for one in container["env"]}
    assert said["WORKERS"] == "comfyui:2,ollama:2,openai:1"
    assert container["image"] == "emp-common:latest"
    assert [one["containerPort"] for one in container["ports"]] == [8188, 8189, 11434]


def test_what_was_installed_into_the_image_is_in_the_pods_volume(tmp_path: Path) -> None:
    [deployment] = rendered(tmp_path)["deployment.yaml"]
    pod = deployment["spec"]["template"]["spec"]
    [fill], [container] = pod["initContainers"], pod["containers"]
    assert (fill["image"], fill["securityContext"]) == (container["image"], container["securityContext"])
    assert [one["name"] for one in fill["volumeMounts"]] == ["data"]


def test_files_that_variables_name_are_there_in_a_pod(tmp_path: Path) -> None:
    (tmp_path / "models.json").write_text("[]")
    files = rendered(tmp_path, COMFYUI_MODELS=f"{tmp_path}/models.json")
    pod = files["deployment.yaml"][0]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    said = {one["name"]: one.get("value") for one in container["env"]}
    [mounted] = [one for one in container["volumeMounts"] if one["name"] == "files"]
    assert (mounted["mountPath"], mounted["subPath"]) == (said["COMFYUI_MODELS"], "COMFYUI_MODELS")
    _, held = files["secret.yaml"]
    assert held["stringData"] == {"COMFYUI_MODELS": "[]"}
    assert pod["volumes"][-1]["secret"]["secretName"] == held["metadata"]["name"]
    for document in (*files["deployment.yaml"], held):
        kubernetes_validate.validate(document, "1.31", strict=True)


def test_a_pod_is_confined(tmp_path: Path) -> None:
    [deployment] = rendered(tmp_path)["deployment.yaml"]
    pod = deployment["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_secrets_stand_in_the_secret_alone(tmp_path: Path) -> None:
    files = {one.path.name: one for one in kubernetes.render(planned(), tmp_path)}
    assert [name for name, one in files.items() if "hunter2" in one.text] == ["secret.yaml"]
    assert files["secret.yaml"].private
    [secret] = yaml.safe_load_all(files["secret.yaml"].text)
    assert secret["stringData"]["HUB_REDIS_URL"] == HUB
    assert secret["stringData"]["KEDA_REDIS_PASSWORD"] == "hunter2"


@pytest.mark.parametrize(
    ("url", "kind", "told"),
    [
        (HUB, "redis", {"address": "hub.example.org:6379", "databaseIndex": "0", "enableTLS": "false"}),
        ("rediss://u:p@h:7000/3", "redis", {"address": "h:7000", "databaseIndex": "3", "enableTLS": "true"}),
        (
            "redis+sentinel://:p@a:1,b:2/main/1",
            "redis-sentinel",
            {"addresses": "a:1,b:2", "sentinelMaster": "main", "databaseIndex": "1"},
        ),
        ("redis+cluster://a:1,b:2", "redis-cluster", {"addresses": "a:1,b:2"}),
    ],
)
def test_keda_counts_the_jobs_that_wait(tmp_path: Path, url: str, kind: str, told: dict[str, str]) -> None:
    authentication, scaled = rendered(tmp_path, HUB_REDIS_URL=url, EMP_NAMESPACE="studio:")["scaledobject.yaml"]
    [trigger] = scaled["spec"]["triggers"]
    assert trigger["type"] == kind
    assert trigger["metadata"]["listName"] == "studio:jobs:pending"
    assert told.items() <= trigger["metadata"].items()
    assert trigger["authenticationRef"]["name"] == authentication["metadata"]["name"]
    assert scaled["spec"]["scaleTargetRef"]["name"] == "emp-worker"


def test_without_a_redis_that_pods_can_reach_nothing_is_written(tmp_path: Path) -> None:
    for url in ("", "redis://127.0.0.1:6379"):
        with pytest.raises(MachineError, match="all of them can reach"):
            kubernetes.render(planned(HUB_REDIS_URL=url), tmp_path)

"""A job as one server of a cluster sees it."""

from collections.abc import Mapping
from typing import Any

from attrs import evolve

from emp_comfyui.cluster.paths import PathMap
from emp_core.jobs.model import Job
from emp_core.jobs.outcomes import JobResult

__all__ = ["job_for", "result_from"]


def job_for(job: Job, paths: PathMap) -> Job:
    """The job with paths as the server calls them. Its workflow must have been read well before."""
    return evolve(job, payload=_translated(job.payload, paths)) if paths.translates else job


def result_from(result: JobResult, paths: PathMap, server: str) -> JobResult:
    """The result with paths as this machine calls them, and the server's name."""
    data: dict[str, Any] = {**result.data, "server": server}
    outputs = data.get("outputs")
    if paths.translates and isinstance(outputs, Mapping):
        data["outputs"] = {
            node_id: {**node, "values": paths.to_local_everywhere(node.get("values", {}))}
            for node_id, node in outputs.items()
        }
    return evolve(result, data=data)


def _translated(payload: Mapping[str, Any], paths: PathMap) -> dict[str, Any]:
    if any(isinstance(value, Mapping) and "class_type" in value for value in payload.values()):
        return paths.graph_to_server(payload)
    return {
        key: paths.graph_to_server(value) if key in ("prompt", "workflow") else value for key, value in payload.items()
    }

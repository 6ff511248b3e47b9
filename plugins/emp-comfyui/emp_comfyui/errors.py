"""From what ComfyUI says of failures to the error types that decide what becomes of a job.

Its errors carry file paths, tracebacks and printed tensors. Users get the node, the type and the first line of the
message, without them.
"""

import re
from collections.abc import Mapping
from typing import Any

from emp_comfyui.needs import is_model_file
from emp_comfyui.workflow import Workflow
from emp_core.connectors.http_errors import shown
from emp_core.errors import (
    ConnectorError,
    InvalidJob,
    JobFailed,
    MissingModel,
    MissingNode,
    OutOfMemory,
    ServiceBroken,
)
from emp_core.jobs.model import JobError

__all__ = ["clean", "dropped_outputs", "interrupted", "node_failure", "refusal"]

_SHOWN_NODES = 20
_SHOWN_ERRORS = 5
# An absolute path with at least two parts; its last part says enough.
_PATH = re.compile(r"(?<![\w.])(?:[A-Za-z]:)?[\\/](?:[^\s'\"\\/:*?<>|]+[\\/])+([^\s'\"\\/:*?<>|]*)")
_NODE_ID = re.compile(r"Node ID '#(?P<id>.*)'")


def clean(text: Any) -> str:
    """The first line of a server's message, without folders and tensors, in one printable line."""
    lines = [line for line in str(text).splitlines() if line.strip()] if text is not None else []
    first = lines[0].split("tensor(", 1)[0] if lines else ""
    return shown(_PATH.sub(r"…/\1", first))


def refusal(answer: Any, workflow: Workflow) -> ConnectorError:
    """The error for a 400 of ``POST /prompt``: ``{"error", "node_errors"}``.

    A node class that the server does not have is MissingNode; model files that it does not have, if nothing else is
    wrong, are MissingModel: another worker may have them. All else is InvalidJob: the workflow is wrong everywhere.
    """
    answer = answer if isinstance(answer, Mapping) else {}
    error = answer.get("error")
    error = error if isinstance(error, Mapping) else {"message": error}
    problems = _problems(answer.get("node_errors"))
    details: dict[str, Any] = {"error_type": error.get("type"), "node_errors": problems}
    missing = _missing_class(error, workflow)
    if missing is not None:
        return MissingNode(
            f"the ComfyUI server has no node class {missing['class_type']!r} (node {missing['node_id']})",
            hint="install the custom node that brings it, or send the job to a worker that has it",
            details={**details, **missing},
        )
    models = _missing_models(problems)
    if models:
        return MissingModel(
            f"the ComfyUI server does not have {', '.join(map(repr, models))}",
            hint="put the model files into the server's models folder, or send the job to a worker that has them",
            details={**details, "models": models},
        )
    message = _summary(problems) or clean(error.get("message")) or "no reason was given"
    return InvalidJob(f"ComfyUI refuses the workflow: {message}", details=details)


def dropped_outputs(node_errors: Any) -> InvalidJob | None:
    """The error for a 200 of ``POST /prompt`` with node errors: the server would leave outputs out and call it a success."""
    problems = _problems(node_errors)
    if not problems:
        return None
    outputs = sorted({output for problem in problems for output in problem["dependent_outputs"]})
    return InvalidJob(
        f"ComfyUI would leave out the outputs of node {', '.join(outputs) or '?'}: {_summary(problems)}",
        hint="mend these nodes or take them out; or set allow_partial in the payload to run the rest",
        details={"node_errors": problems, "dropped_outputs": outputs},
    )


def node_failure(error: Mapping[str, Any], workflow: Workflow, earlier: JobError | None = None) -> ConnectorError:
    """The error for an ``execution_error`` that ended a prompt.

    Most are JobFailed, which is tried again while attempts last, elsewhere if possible: the same exception type comes
    from a wrong workflow and from a damaged model file, an old node or a full disk, and the server keeps the results of
    all nodes before the one that failed, so that another attempt costs little. What fails twice in the same way would fail a
    third time: that is InvalidJob, as is a picture that is none.

    Args:
        earlier: how the attempt before failed.
    """
    exception = str(error.get("exception_type") or "")
    node_id = str(error.get("node_id") or "?")
    node_class = str(error.get("node_type") or workflow.class_of(node_id) or "?")
    message = clean(error.get("exception_message"))
    details = {
        "reason": "node_failed",
        "node_id": node_id,
        "node_type": node_class,
        "exception_type": shown(exception),
        "exception_message": message,
    }
    said = f"node {node_id} ({node_class}) failed: {shown(exception) or 'no type'}" + (
        f": {message}" if message else ""
    )
    match exception.rpartition(".")[2]:
        case "OutOfMemoryError" | "MemoryError":
            return OutOfMemory(
                f"the ComfyUI server ran out of memory at node {node_id} ({node_class})",
                hint="lower the batch size or resolution, or use a bigger GPU",
                details=details,
            )
        case "AcceleratorError" | "CudaError" | "DeferredCudaCallError":
            return ServiceBroken(said, hint="restart the ComfyUI server: its GPU context is damaged", details=details)
        case "UnidentifiedImageError":
            return InvalidJob(said, hint="give a picture in a format that the server's Pillow reads", details=details)
    if earlier is not None and details.items() <= dict(earlier.details).items():
        return InvalidJob(f"{said}, in the same way twice", hint="mend the workflow or the node", details=details)
    return JobFailed(said, details=details)


def interrupted(prompt_id: str) -> JobFailed:
    """The error for a prompt that somebody else stopped."""
    return JobFailed(
        "the prompt was interrupted at the ComfyUI server, not by this job",
        hint="somebody pressed cancel in the editor, or another client interrupts without an id",
        details={"reason": "interrupted", "prompt_id": prompt_id},
    )


def _problems(node_errors: Any) -> list[dict[str, Any]]:
    """The server's node errors without tracebacks and lists of choices."""
    if not isinstance(node_errors, Mapping):
        return []
    problems = []
    for node_id, given in list(node_errors.items())[:_SHOWN_NODES]:
        told = given if isinstance(given, Mapping) else {}
        reasons = told.get("errors")
        outputs = told.get("dependent_outputs")
        problems.append(
            {
                "node_id": str(node_id),
                "class_type": shown(str(told.get("class_type", "?"))),
                "dependent_outputs": [str(output) for output in outputs] if isinstance(outputs, list) else [],
                "errors": [
                    _reason(reason) for reason in (reasons if isinstance(reasons, list) else [])[:_SHOWN_ERRORS]
                ],
            }
        )
    return problems


def _reason(reason: Any) -> dict[str, Any]:
    reason = reason if isinstance(reason, Mapping) else {"message": reason}
    extra = reason.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    shown_reason = {
        "type": reason.get("type"),
        "message": clean(reason.get("message")),
        "details": clean(reason.get("details")),
        "input": extra.get("input_name"),
    }
    received = extra.get("received_value")
    if isinstance(received, str | int | float | bool):
        shown_reason["received"] = shown(received) if isinstance(received, str) else received
    return {key: value for key, value in shown_reason.items() if value not in (None, "")}


def _summary(problems: list[dict[str, Any]]) -> str:
    parts = [
        f"node {problem['node_id']} ({problem['class_type']}): {_words(reason)}"
        for problem in problems
        for reason in problem["errors"]
    ]
    more = f"; and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "; ".join(parts[:3]) + more


def _words(reason: Mapping[str, Any]) -> str:
    message, details = reason.get("message", ""), reason.get("details", "")
    return f"{message}: {details}" if message and details else str(message or details or reason.get("type", "?"))


def _missing_class(error: Mapping[str, Any], workflow: Workflow) -> dict[str, str] | None:
    """The node whose class the server does not have. Newer servers say so; older ones name the node alone."""
    extra = error.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    match error.get("type"):
        case "missing_node_type":
            node_id = str(extra.get("node_id") or "?")
            return {"node_id": node_id, "class_type": str(extra.get("class_type") or workflow.class_of(node_id) or "?")}
        case "invalid_prompt":
            # The only other cause of this type, a node without a class, never leaves this connector.
            found = _NODE_ID.search(str(error.get("details")))
            node_id = found["id"] if found else ""
            class_type = workflow.class_of(node_id)
            return None if class_type is None else {"node_id": node_id, "class_type": class_type}
    return None


def _missing_models(problems: list[dict[str, Any]]) -> list[str]:
    """Names of model files that are not in the server's lists, if that is all that is wrong."""
    models = []
    for problem in problems:
        for reason in problem["errors"]:
            received = reason.get("received")
            if reason.get("type") != "value_not_in_list" or not isinstance(received, str):
                return []
            if not is_model_file(received):
                return []
            models.append(received)
    return sorted(set(models))

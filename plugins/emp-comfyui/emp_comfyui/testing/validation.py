"""What ``POST /prompt`` refuses, and in which words.

Types, messages and shapes are those of the recorded refusals. A defect that is not of the graph's making but of its form
(a prompt that is no object) raises here as it does in the real server, and becomes a 500 with plain text.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from emp_comfyui.testing.node_class import Input, NodeClass, NodeRegistry, Site

Reason = dict[str, Any]


@attrs.frozen
class Verdict:
    """What validation found: ``error`` None and the outputs that will run, or the error; in both cases reasons by node."""

    error: dict[str, Any] | None
    outputs: list[str]
    node_errors: dict[str, Any]


@attrs.frozen
class _Checked:
    valid: bool
    reasons: list[Reason]


def validate_prompt(prompt: Any, nodes: NodeRegistry, site: Site, targets: Sequence[str] | None = None) -> Verdict:
    """Check a prompt as a whole; ``targets`` limits its outputs (partial execution)."""
    outputs: list[str] = []
    for node_id in prompt:
        node = prompt[node_id]
        if "class_type" not in node:
            message = "Cannot execute because a node is missing the class_type property."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'")
        node_class = nodes.get(node["class_type"])
        if node_class is None:
            message = f"Cannot execute because node {node['class_type']} does not exist."
            return _refused("invalid_prompt", message, f"Node ID '#{node_id}'")
        if node_class.output_node and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return _refused("prompt_no_outputs", "Prompt has no outputs", "")
    return _check_outputs(prompt, outputs, _Checker(prompt, nodes, site))


def _refused(kind: str, message: str, details: str) -> Verdict:
    return Verdict({"type": kind, "message": message, "details": details, "extra_info": {}}, [], {})


def _check_outputs(prompt: Mapping[str, Any], outputs: list[str], checker: "_Checker") -> Verdict:
    good: list[str] = []
    own_reasons: list[Reason] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        checked = checker.check_output(output)
        if checked.valid:
            good.append(output)
            continue
        own_reasons.extend(checked.reasons)
        for node_id, result in checker.results.items():
            if result.valid or not result.reasons:
                continue
            entry = {"errors": result.reasons, "dependent_outputs": [], "class_type": prompt[node_id]["class_type"]}
            node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
    if good:
        return Verdict(None, good, node_errors)
    details = "\n".join(f"{reason['message']}: {reason['details']}" for reason in own_reasons)
    refusal = _refused("prompt_outputs_failed_validation", "Prompt outputs failed validation", details)
    return attrs.evolve(refusal, node_errors=node_errors)


class _Checker:
    """Checks nodes from the outputs up; each node once."""

    def __init__(self, prompt: Mapping[str, Any], nodes: NodeRegistry, site: Site) -> None:
        self._prompt = prompt
        self._nodes = nodes
        self._site = site
        self._open: set[str] = set()
        self.results: dict[str, _Checked] = {}

    def check_output(self, node_id: str) -> _Checked:
        try:
            return self._check(node_id)
        except Exception as error:  # a graph can be wrong in any way: the answer names it
            info = {"exception_type": type(error).__name__, "traceback": _traceback()}
            reason = _reason("exception_during_validation", "Exception when validating node", str(error), info)
            self.results[node_id] = _Checked(valid=False, reasons=[reason])
            return self.results[node_id]

    def _check(self, node_id: str) -> _Checked:
        if node_id in self.results:
            return self.results[node_id]
        if node_id in self._open:
            return _Checked(valid=False, reasons=[])  # a cycle: refused without a reason
        self._open.add(node_id)
        try:
            result = self._check_inputs(node_id)
        finally:
            self._open.discard(node_id)
        self.results[node_id] = result
        return result

    def _check_inputs(self, node_id: str) -> _Checked:
        given = self._prompt[node_id]["inputs"]
        node_class = self._class_of(node_id)
        reasons: list[Reason] = []
        sound = True
        for name, declared in {**node_class.inputs, **node_class.optional}.items():
            if name not in given:
                if name in node_class.inputs:
                    info = {"input_name": name}
                    reasons.append(_reason("required_input_missing", "Required input is missing", name, info))
            elif isinstance(given[name], list):
                reason, upstream = self._check_link(name, declared, given[name])
                reasons.extend(reason)
                sound = sound and upstream
            else:
                reasons.extend(self._check_value(node_class, name, declared, given))
        reasons.extend(self._own_validation(node_class, given))
        return _Checked(valid=sound and not reasons, reasons=reasons)

    def _class_of(self, node_id: str) -> NodeClass:
        node_class = self._nodes.get(self._prompt[node_id]["class_type"])
        if node_class is None:
            raise KeyError(self._prompt[node_id]["class_type"])
        return node_class

    def _check_link(self, name: str, declared: Input, link: list[Any]) -> tuple[list[Reason], bool]:
        info: dict[str, Any] = {"input_name": name, "input_config": _config(declared, self._site)}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return [_reason("bad_linked_input", message, name, {**info, "received_value": link})], True
        origin, slot = link
        outputs = self._class_of(origin).outputs
        received = outputs[slot]
        wanted = declared.type if isinstance(declared.type, str) else "COMBO"
        if not _fits(received, wanted):
            details = f"{name}, received_type({received}) mismatch input_type({wanted})"
            info.update(received_type=received, linked_node=link)
            return [_reason("return_type_mismatch", "Return type mismatch between linked nodes", details, info)], True
        return [], self._check_upstream(origin, info, link)

    def _check_upstream(self, origin: str, info: dict[str, Any], link: list[Any]) -> bool:
        try:
            return self._check(origin).valid
        except Exception as error:
            info.update(
                exception_message=str(error),
                exception_type=type(error).__name__,
                traceback=_traceback(),
                linked_node=link,
            )
            message = "Exception when validating inner node"
            reason = _reason("exception_during_inner_validation", message, str(error), info)
            self.results[origin] = _Checked(valid=False, reasons=[reason])
            return False

    def _check_value(self, node_class: NodeClass, name: str, declared: Input, given: dict[str, Any]) -> list[Reason]:
        info: dict[str, Any] = {"input_name": name, "input_config": _config(declared, self._site)}
        value = given[name]
        try:
            value = given[name] = _converted(declared.type, value)
        except (TypeError, ValueError) as error:
            details = f"{name}, {value}, {error}"
            info.update(received_value=value, exception_message=str(error))
            message = f"Failed to convert an input value to a {declared.type} value"
            return [_reason("invalid_input_type", message, details, info)]
        info["received_value"] = value
        if name in node_class.validates:
            return []
        return _check_range(name, declared, value, info) or self._check_choice(name, declared, value, info)

    def _check_choice(self, name: str, declared: Input, value: Any, info: dict[str, Any]) -> list[Reason]:
        choices = declared.allowed(self._site)
        if choices is None and declared.type == "COMBO":
            choices = list((declared.options or {}).get("options", []))
        if choices is None or value in choices:
            return []
        details = f"{name}: '{value}' not in {choices}"
        if len(choices) > 20:
            details = f"{name}: '{value}' not in (list of length {len(choices)})"
            info["input_config"] = None
        return [_reason("value_not_in_list", "Value not in list", details, info)]

    def _own_validation(self, node_class: NodeClass, given: Mapping[str, Any]) -> list[Reason]:
        if node_class.validate is None:
            return []
        found = node_class.validate(given, self._site)
        message = "Custom validation failed for node"
        return [
            _reason("custom_validation_failed", message, f"{name} - {words}", {"input_name": name})
            for name, words in found.items()
        ]


def _check_range(name: str, declared: Input, value: Any, info: dict[str, Any]) -> list[Reason]:
    options = declared.options or {}
    if "min" in options and value < options["min"]:
        return [_reason("value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", name, info)]
    if "max" in options and value > options["max"]:
        return [_reason("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", name, info)]
    return []


def _converted(kind: object, value: Any) -> Any:
    match kind:
        case "INT":
            return int(value)
        case "FLOAT":
            return float(value)
        case "STRING":
            return str(value)
        case "BOOLEAN":
            return bool(value)
        case _:
            return value


def _fits(received: str, wanted: str) -> bool:
    """Whether an output type may be linked to an input type: the same, ``*``, or one of several."""
    if "*" in (received, wanted):
        return True
    return bool(set(received.split(",")) <= set(wanted.split(",")))


def _config(declared: Input, site: Site) -> list[Any]:
    kind, *options = declared.described(site)
    return [kind, options[0] if options else {}]


def _reason(kind: str, message: str, details: str, info: dict[str, Any]) -> Reason:
    return {"type": kind, "message": message, "details": details, "extra_info": info}


def _traceback() -> list[str]:
    return ['  File "ComfyUI/execution.py", line 788, in validate_inputs\n']

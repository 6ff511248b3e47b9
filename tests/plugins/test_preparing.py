import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
from attrs import evolve, frozen

from emp_core.config import Settings
from emp_core.connectors.base import Connector
from emp_core.connectors.context import JobContext
from emp_core.connectors.echo import EchoConnector
from emp_core.errors import InvalidJob, PluginError
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.outcomes import JobResult
from emp_core.jobs.requirements import Requirements
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.preparing import Preparer, connectors_for, installed_preparer, payload_classes
from emp_core.services.load import read_mapping

InstallPlugin = Callable[..., None]


@frozen
class Drawing:
    model: str
    steps: int = 20


@frozen
class Naming:
    name: str


class Untyped(Connector):
    service_type = "draw"

    async def process_job(self, job: Job, context: JobContext) -> JobResult:
        return JobResult()


class Typed(Untyped):
    payload_class = Drawing


class Drawer(Typed):
    """Finds the model that a payload needs, and says how many steps it takes."""

    @classmethod
    def prepare_job(cls, spec: JobSpec) -> JobSpec:
        found = Requirements(models=(spec.payload["model"],), hardware={"gpu_memory_mb": 8000})
        return evolve(spec, payload={"steps": 20, **spec.payload}).with_requirements(found)


def preparer(*connectors: type[Connector]) -> Preparer:
    return Preparer(lambda service: connectors if service == "draw" else [])


async def prepared(spec: JobSpec, *connectors: type[Connector]) -> JobSpec:
    [made] = await preparer(*connectors).prepare([spec])
    return made


async def test_a_payload_that_does_not_fit_is_refused():
    with pytest.raises(InvalidJob) as caught:
        await prepared(JobSpec("draw", {"steps": "5", "mood": "good"}), Typed)
    assert caught.value.details["problems"] == [
        "payload.model: it is required",
        "payload.steps: expected a whole number, not a text",
        "payload.mood: unknown; known are model, steps",
    ]


async def test_a_job_that_fits_goes_as_it_is():
    spec = JobSpec("draw", {"model": "m"})
    assert await prepared(spec, Typed) is spec


async def test_a_connector_adds_defaults_and_requirements():
    made = await prepared(JobSpec("draw", {"model": "m"}, priority=7), Drawer)
    assert made.payload == {"model": "m", "steps": 20}
    assert made.requirements == Requirements(models=("m",), hardware={"gpu_memory_mb": 8000})
    assert made.priority == 7


async def test_what_the_user_said_goes_first():
    asked = {"models": ["mine"], "hardware": {"gpu_memory_mb": 500, "ram_mb": 1}}
    made = await prepared(JobSpec("draw", {"model": "m", "steps": 3}, requirements=asked), Drawer)
    assert made.payload == {"model": "m", "steps": 3}
    assert made.requirements == Requirements(("m", "mine"), {"gpu_memory_mb": 500, "ram_mb": 1})


def test_requirements_are_put_over_those_that_were_found():
    said = Requirements(("a",), {"ram_mb": 1}, {"fast": True}, {"old": True}, "none")
    found = Requirements(("b", "a"), {"ram_mb": 9, "cpu_cores": 2}, {"fast": False, "x": 1}, {"y": 1}, "loose")
    assert said.over(found) == Requirements(
        ("a", "b"), {"ram_mb": 1, "cpu_cores": 2}, {"fast": True, "x": 1}, {"old": True, "y": 1}, "loose"
    )
    assert evolve(said, isolation="strict").over(found).isolation == "strict"


async def test_a_payload_class_may_hang_on_the_service():
    class Two(Untyped):
        payload_class: ClassVar[Mapping[str, type]] = {"draw": Drawing, "name": Naming}

    both = Preparer.of({"draw": Two, "name": Two, "other": Two})
    specs = [JobSpec("draw", {"model": "m"}), JobSpec("name", {"name": "n"}), JobSpec("other", {"any": "thing"})]
    assert await both.prepare(specs) == specs
    with pytest.raises(InvalidJob, match=r"payload.name: it is required"):
        await both.prepare([JobSpec("name", {})])


async def test_the_first_of_several_connectors_that_takes_the_payload_prepares_the_job():
    class Namer(Untyped):
        payload_class = Naming

        @classmethod
        def prepare_job(cls, spec: JobSpec) -> JobSpec:
            return evolve(spec, labels={"by": "namer"})

    assert (await prepared(JobSpec("draw", {"name": "n"}), Drawer, Namer)).labels == {"by": "namer"}
    with pytest.raises(InvalidJob, match=r"payload.model: it is required"):
        await prepared(JobSpec("draw", {"neither": 1}), Drawer, Namer)


async def test_a_payload_that_one_connector_refuses_goes_to_one_that_takes_anything():
    spec = JobSpec("draw", {"odd": 1})
    assert await prepared(spec, Typed, Untyped) is spec


@pytest.mark.parametrize("name", ["unknown", "", 3, ["draw"], None])
async def test_services_that_nobody_knows_and_names_that_are_none_are_left_to_the_queue(name: Any):
    specs = [JobSpec(name, {"odd": 1})]
    assert list(await preparer(Typed).prepare(specs)) == specs


async def test_connectors_are_looked_up_once_per_service_and_not_in_the_event_loops_thread():
    asked: list[tuple[str, bool]] = []

    def connectors_of(service: str) -> Sequence[type[Connector]]:
        asked.append((service, threading.current_thread() is threading.main_thread()))
        return [Typed] if service == "draw" else []

    made = Preparer(connectors_of)
    for _ in range(3):
        await made.prepare([JobSpec("draw", {"model": "m"}), JobSpec("other"), JobSpec("draw", {"model": "m"})])
    assert asked == [("draw", False), ("other", False)]


async def test_names_of_services_are_not_kept_for_ever():
    made = preparer(Typed)
    await made.prepare([JobSpec(f"s{n}") for n in range(1500)])
    await made.prepare([JobSpec("draw", {"model": "m"})])
    assert len(made._steps) == 1


async def test_a_connector_that_fails_in_preparing_is_told_without_the_payload():
    class Broken(Typed):
        @classmethod
        def prepare_job(cls, spec: JobSpec) -> JobSpec:
            return cast("JobSpec", spec.payload["hunter2"])

    with pytest.raises(PluginError, match=r"Broken.prepare_job raised KeyError") as caught:
        await prepared(JobSpec("draw", {"model": "m"}), Broken)
    assert "hunter2" not in str(caught.value)
    assert "prepare=False" in str(caught.value.hint)


async def test_a_connector_that_gives_something_else_or_breaks_the_payload_is_told():
    class Other(Typed):
        @classmethod
        def prepare_job(cls, spec: JobSpec) -> JobSpec:
            return cast("JobSpec", spec.payload)

    class Breaks(Typed):
        @classmethod
        def prepare_job(cls, spec: JobSpec) -> JobSpec:
            return evolve(spec, payload={"model": 3})

    with pytest.raises(PluginError, match="gave dict instead of a JobSpec"):
        await prepared(JobSpec("draw", {"model": "m"}), Other)
    with pytest.raises(PluginError, match=r"does not fit its class: .*payload.model: expected a text"):
        await prepared(JobSpec("draw", {"model": "m"}), Breaks)


async def test_a_connector_may_refuse_what_no_worker_could_run():
    class Refuses(Typed):
        @classmethod
        def prepare_job(cls, spec: JobSpec) -> JobSpec:
            raise InvalidJob("payload.model: there is no such model anywhere")

    with pytest.raises(InvalidJob, match="no such model"):
        await prepared(JobSpec("draw", {"model": "m"}), Refuses)


async def test_a_payload_class_that_cannot_be_used_refuses_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture):
    class Odd(Untyped):
        payload_class = dict

    made = preparer(Odd)
    for _ in range(3):
        await made.prepare([JobSpec("draw", {"a": 1})])
    [log] = caplog.records
    assert "payloads are not checked at submit" in log.getMessage()
    assert "is no attrs class" in log.getMessage()


async def test_the_installed_plugins_prepare_jobs():
    with pytest.raises(InvalidJob, match=r"payload.\$echo.steps"):
        await installed_preparer(Settings()).prepare([JobSpec("echo", {"$echo": {"steps": 0}})])
    assert installed_preparer(Settings()) is installed_preparer(Settings(namespace="other"))


BROKEN = """
    @hookimpl
    def emp_register_connectors():
        return [Registration("BrokenConnector", "there_is_no_such_module:Connector")]

    @hookimpl
    def emp_service_mapping():
        return {
            "workers": {"broken": {"services": ["broken"]}},
            "services": {"broken": {"connector": "BrokenConnector", "type": "external_api"}},
        }
"""


async def test_a_plugin_that_does_not_load_refuses_nothing_and_is_told_once(
    install: InstallPlugin, caplog: pytest.LogCaptureFixture
):
    install("broken", BROKEN)
    plugins = load_plugins()
    mapping = read_mapping("{}", plugins, {}, source="test")
    made = Preparer(lambda service: connectors_for(service, plugins, mapping))
    spec = JobSpec("broken", {"any": "thing"})
    for _ in range(3):
        assert await made.prepare([spec]) == [spec]
    [log] = caplog.records
    assert "service='broken'" in log.getMessage()
    assert "there_is_no_such_module" in log.getMessage()


def test_the_mapping_says_which_connectors_a_job_may_get():
    text = """{
        "workers": {
            "a": {"services": ["one"], "job_service_required_map": [{"job_service_required": "x", "worker_service": "one"}]},
            "b": {"services": ["two"], "job_service_required_map": [{"job_service_required": "x", "worker_service": "two"}]}
        },
        "services": {
            "one": {"connector": "EchoConnector", "type": "external_api"},
            "two": {"connector": "EchoConnector", "type": "external_api"}
        }
    }"""
    plugins = load_plugins()
    mapping = read_mapping(text, plugins, {}, source="test")
    assert connectors_for("x", plugins, mapping) == [EchoConnector]
    assert connectors_for("one", plugins, mapping) == []


async def test_two_plugins_that_cannot_be_used_together_refuse_nothing(
    install: InstallPlugin, caplog: pytest.LogCaptureFixture, tmp_path: Path
):
    install("one", BROKEN)
    install("two", BROKEN)
    specs = [JobSpec("broken", {"any": "thing"})]
    # A mapping of this test's own, so that nobody else's preparer is used.
    made = installed_preparer(Settings(service_mapping=tmp_path / "none.json"))
    for _ in range(3):
        assert await made.prepare(specs) == specs
    [log] = caplog.records
    assert "payloads are not checked at submit" in log.getMessage()
    assert "BrokenConnector" in log.getMessage()


def test_no_plugin_is_imported_before_the_first_job():
    program = (
        "import sys, emp_core; from emp_core import JobQueue, JobSpec, SyncJobQueue; JobQueue.connect('redis://x');"
        "print([m for m in sys.modules if m.startswith('emp_core.plugins') or m.startswith('emp_comfyui')])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_payload_classes_of_a_service_are_those_of_its_connectors_unless_one_takes_anything():
    assert payload_classes("draw", [Typed, Drawer]) == [Drawing]
    assert payload_classes("draw", [Typed, Untyped]) is None
    assert payload_classes("draw", []) is None

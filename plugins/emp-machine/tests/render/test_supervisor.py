"""supervisord.conf, as supervisor itself reads it."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from emp_machine.plan.model import MachinePlan
from emp_machine.render.files import write_files
from emp_machine.render.supervisor import render
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from supervisor.options import ServerOptions

from .conftest import ODD, MakePlan
from .test_env import names, texts


def programs(plan: MachinePlan, folder: Path) -> Mapping[str, Any]:
    """What supervisor makes of the rendered file."""
    write_files(render(plan, folder), folder)
    options = ServerOptions()
    options.realize(["-c", str(folder / "supervisord.conf")])
    return {one.name: one for group in options.process_group_configs for one in group.process_configs}


def order_of(program: Any) -> tuple[list[str], dict[str, str]]:
    """Program, arguments and variables, wherever they stand."""
    argv = shlex.split(program.command)
    if "begin.py" not in program.command:
        return argv, dict(program.environment)
    order = json.loads(Path(argv[-1]).read_text())
    return order["argv"], order["environ"]


def test_supervisor_reads_the_programs_as_the_plan_has_them(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan({"EMP_POOL": "100%", "EMP_CAPABILITIES": '{"fast": true}'})
    found = programs(plan, tmp_path / "out")
    assert list(found) == ["tool-gpu0", "worker-tool-gpu0"]
    for process in plan.processes:
        program = found[process.name]
        assert order_of(program) == (list(process.argv), dict(process.environ))
        assert "begin.py" not in program.command
        assert (program.directory, program.stdout_logfile) == (str(process.cwd), str(process.log))
        assert (program.redirect_stderr, program.killasgroup, program.stopsignal) == (True, True, 15)
    assert (found["tool-gpu0"].stopwaitsecs, found["worker-tool-gpu0"].stopwaitsecs) == (6, 40)
    assert found["tool-gpu0"].priority < found["worker-tool-gpu0"].priority


def test_texts_that_it_cannot_hold_stand_in_a_private_file(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(ODD, arguments=("--name", "a ;b", "it's", '"so"', "100%"))
    found = programs(plan, tmp_path / "out")
    for process in plan.processes:
        assert order_of(found[process.name]) == (list(process.argv), dict(process.environ))
        order = tmp_path / "out" / "orders" / f"{process.name}.json"
        assert order.stat().st_mode & 0o777 == 0o600


def test_an_order_is_begun_with_its_variables(make_plan: MakePlan, tmp_path: Path) -> None:
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    plan = make_plan(ODD)
    process = plan.workers[0]
    program = programs(plan, tmp_path / "out")[process.name]
    argv = shlex.split(program.command)
    order = Path(argv[-1])
    told = json.loads(order.read_text())
    order.write_text(json.dumps({**told, "argv": [told["argv"][0], "-c", code, "a b", ""]}))
    environ = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    ran = subprocess.run(argv, env=environ, capture_output=True, check=True)
    arguments, seen = json.loads(ran.stdout)
    assert arguments == ["a b", ""]
    assert seen.items() >= process.environ.items()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(environ=st.dictionaries(names, texts, max_size=3), arguments=st.lists(texts, max_size=2))
def test_no_text_is_changed_on_its_way(
    make_plan: MakePlan, tmp_path_factory, environ: dict[str, str], arguments: list[str]
) -> None:
    plan = make_plan(environ, arguments=tuple(arguments))
    found = programs(plan, tmp_path_factory.mktemp("out"))
    for process in plan.processes:
        assert order_of(found[process.name]) == (list(process.argv), dict(process.environ))

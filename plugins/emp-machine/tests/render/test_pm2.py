"""ecosystem.config.js."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from emp_machine.render.files import write_files
from emp_machine.render.pm2 import render

from .conftest import ODD, MakePlan


def test_node_reads_the_apps_as_the_plan_has_them(make_plan: MakePlan, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs Node.js: apt-get install nodejs")
    plan = make_plan(ODD, arguments=("it's", '"so"', "\N{LINE SEPARATOR}"))
    write_files(render(plan, tmp_path), tmp_path)
    program = "console.log(JSON.stringify(require(process.argv[1])))"
    file = tmp_path / "ecosystem.config.js"
    assert file.stat().st_mode & 0o777 == 0o600
    ran = subprocess.run([node, "-e", program, str(file)], capture_output=True, check=True)
    for app, process in zip(json.loads(ran.stdout)["apps"], plan.processes, strict=True):
        assert (app["name"], [app["script"], *app["args"]]) == (process.name, list(process.argv))
        assert app["env"] == dict(process.environ)
        assert (app["interpreter"], app["cwd"]) == ("none", str(process.cwd))
        assert app["out_file"] == app["error_file"] == str(process.log)
        assert app["kill_timeout"] == process.stop_s * 1000
        assert app["autorestart"] is True
        assert app["exp_backoff_restart_delay"] > 0

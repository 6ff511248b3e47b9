"""A service that is started to be asked ends with whoever started it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import anyio
import psutil
import pytest
from emp_machine.probe import answers

from emp_core.errors import InstallError
from emp_core.services.launch import HealthCheck, Launch, ServiceInstance

ASKING = """
import os, sys
from pathlib import Path
import anyio
from emp_machine.probe import answers
from emp_core.services.launch import HealthCheck, Launch

program = "import os; print(os.getpid(), file=open('pid.part', 'w')); os.rename('pid.part', 'pid'); import time; time.sleep(600)"

def launch(instance):
    return Launch((sys.executable, "-c", program), Path(sys.argv[1]), health=HealthCheck(None, instance.port))

anyio.run(answers, launch, "it", Path(sys.argv[1]), dict(os.environ))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_with_an_installation_that_is_killed(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", ASKING, str(tmp_path)]) as asking:
        while not (tmp_path / "pid").exists():
            assert asking.poll() is None
            os.sched_yield()
        probed = psutil.Process(int((tmp_path / "pid").read_text()))
        asking.send_signal(signal.SIGKILL)
    probed.wait(10)
    assert not probed.is_running()


def test_a_program_that_is_not_there_is_named(tmp_path: Path):
    def launch(instance: ServiceInstance) -> Launch:
        return Launch((str(tmp_path / "none"),), tmp_path, health=HealthCheck(None, instance.ports[0]))

    with pytest.raises(InstallError, match="it cannot be started: there is no program"):
        anyio.run(answers, launch, "it", tmp_path, dict(os.environ))

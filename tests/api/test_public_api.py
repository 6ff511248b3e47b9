import ast
import inspect
import subprocess
import sys
from pathlib import Path

import emp_core
from emp_core import errors
from emp_core.queue.queue import JobQueue
from emp_core.queue.synchronous import SyncJobQueue


def test_every_exported_name_can_be_imported_and_says_what_it_is():
    for name in emp_core.__all__:
        assert (getattr(emp_core, name).__doc__ or "").strip() or name == "Outcome", name


def test_what_the_type_checker_sees_is_what_is_exported():
    tree = ast.parse(Path(emp_core.__file__).read_text())
    [checking] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.name for node in checking.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert sorted(seen) == emp_core.__all__


def test_every_error_is_exported():
    assert set(errors.__all__) <= set(emp_core.__all__)


def test_every_error_has_a_code_of_its_own():
    codes = [getattr(errors, name).code for name in errors.__all__]
    assert len(codes) == len(set(codes))


def test_importing_the_package_imports_nothing_heavy():
    program = (
        "import sys, emp_core; print([m for m in ('redis', 'httpx', 'click', 'rich', 'pynvml') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_synchronous_queue_has_every_method_with_the_same_parameters():
    def methods(cls):
        return {
            name: list(inspect.signature(method).parameters)
            for name, method in inspect.getmembers(cls, inspect.isroutine)
            if not name.startswith("_")
        }

    # A reader of events waits for what comes: that is what a program with an event loop is for.
    assert methods(SyncJobQueue) == {name: found for name, found in methods(JobQueue).items() if name != "event_reader"}

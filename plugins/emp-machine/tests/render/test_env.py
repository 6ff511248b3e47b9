"""Files of variables."""

from pathlib import Path

from emp_machine.envfile import read_env_file
from emp_machine.render.env import render, variables
from emp_machine.render.files import write_files
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import ODD, MakePlan

names = st.from_regex(r"[A-Z][A-Z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)


@settings(deadline=None)
@given(st.dictionaries(names, texts, max_size=4))
def test_what_is_written_is_read_back(tmp_path_factory, environ: dict[str, str]) -> None:
    path = tmp_path_factory.mktemp("env") / "a.env"
    path.write_bytes(variables(environ).encode())
    assert read_env_file(path) == {name: value for name, value in environ.items() if value}


def test_each_process_has_a_file_of_its_own_and_the_machine_one(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(ODD)
    files = render(plan, tmp_path)
    assert [one.path.as_posix() for one in files] == ["machine.env", "env/tool-gpu0.env", "env/worker-tool-gpu0.env"]
    assert all(one.private for one in files)
    write_files(files, tmp_path)
    assert read_env_file(tmp_path / "env" / "worker-tool-gpu0.env") == {
        name: value for name, value in plan.workers[0].environ.items() if value
    }
    assert read_env_file(tmp_path / "machine.env") == {name: value for name, value in plan.environ.items() if value}


def test_the_address_of_the_machines_own_redis_is_told_and_not_set(make_plan: MakePlan, tmp_path: Path) -> None:
    url = {"HUB_REDIS_URL": "redis://127.0.0.1:6380"}
    own = render(make_plan(url, own_redis=True), tmp_path)[0].text
    assert "# HUB_REDIS_URL is not set: the machine has a Redis of its own, redis://127.0.0.1:6380" in own
    assert "\nHUB_REDIS_URL=" not in own
    assert "\nHUB_REDIS_URL=redis://127.0.0.1:6380\n" in render(make_plan(url), tmp_path)[0].text

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.echo import EchoConnector
from emp_core.errors import PluginError, ServiceUnavailable
from emp_core.jobs.codec import decode_job
from emp_core.jobs.outcomes import Cancelled
from emp_core.plugins.commands import add_commands
from emp_core.plugins.manager import load_plugins
from emp_core.plugins.offline import OfflinePlugin

InstallPlugin = Callable[..., None]

CANCELLED = {"service_required": "echo", "status": "cancelled"}

CONNECTOR = """
    @hookimpl
    def emp_register_connectors():
        return [Registration({name!r}, {target!r})]
"""


def offline(name: str) -> OfflinePlugin:
    [found] = [one for one in load_plugins().offline if one.name == name]
    return found


def test_the_echo_plugin_is_there_and_brings_its_connector_and_worker_type():
    plugins = load_plugins()
    [echo] = [one for one in plugins.listing() if one.name == "echo"]
    assert echo.ok
    assert echo.distribution == "emp-core"
    assert echo.registers == {"connector": ("EchoConnector",), "worker": ("echo",), "service": ("echo",)}
    assert plugins.connectors["EchoConnector"].plugin == "echo"
    assert plugins.connector_class("EchoConnector") is EchoConnector


def test_an_installed_plugin_is_found_with_all_that_it_registers(install: InstallPlugin):
    install(
        "mine",
        """
        from attrs import frozen

        @frozen
        class MySettings:
            pass

        @hookimpl
        def emp_register_connectors():
            return [Registration("MineConnector", "mine.here:Connector", "my own")]

        @hookimpl
        def emp_register_installers():
            return (Registration("MineInstaller", "mine.here:Installer"),)

        @hookimpl
        def emp_register_stores():
            return [Registration("mine", "mine.here:Store")]

        @hookimpl
        def emp_register_balancers():
            return [Registration("mine-first", "mine.here:Balancer")]

        @hookimpl
        def emp_service_mapping():
            return {"services": {"mine": {"connector": "MineConnector", "type": "external_api"}}}

        @hookimpl
        def emp_settings():
            return [MySettings]
        """,
        version="2.5",
    )
    plugins = load_plugins()
    [mine] = [one for one in plugins.listing() if one.name == "mine"]
    assert (mine.ok, mine.distribution, mine.version) == (True, "emp-mine", "2.5")
    assert mine.registers == {
        "connector": ("MineConnector",),
        "installer": ("MineInstaller",),
        "store": ("mine",),
        "balancer": ("mine-first",),
        "service": ("mine",),
    }
    assert plugins.installers["MineInstaller"].registration.target == "mine.here:Installer"
    assert plugins.stores["mine"].plugin == plugins.balancers["mine-first"].plugin == "mine"
    assert plugins.mapping_parts()["mine"]["services"]["mine"]["connector"] == "MineConnector"
    assert "MySettings" in {one.__name__ for one in plugins.settings_classes()}


@pytest.mark.parametrize(
    ("source", "error_type", "says"),
    [
        ("import there_is_no_such_module", "ModuleNotFoundError", "there_is_no_such_module"),
        ("raise RuntimeError('no licence')", "RuntimeError", "no licence"),
        ("raise SystemExit('bye')", "SystemExit", "bye"),
        ("def broken(:", "SyntaxError", "invalid syntax"),
    ],
)
def test_a_plugin_that_fails_on_import_is_offline_and_says_why(
    install: InstallPlugin, source: str, error_type: str, says: str
):
    install("bad", source, version="0.3")
    install("good", CONNECTOR.format(name="GoodConnector", target="good:Connector"))
    plugins = load_plugins()
    bad = offline("bad")
    assert (bad.distribution, bad.version, bad.error_type) == ("emp-bad", "0.3", error_type)
    assert says in bad.message
    assert "emp_bad_plugin" in bad.traceback
    assert {"GoodConnector", "EchoConnector"} <= set(plugins.connectors)
    [listed] = [one for one in plugins.listing() if one.name == "bad"]
    assert not listed.ok
    assert listed.reason is not None
    assert listed.reason.startswith(f"{error_type}: ")


def test_a_plugin_whose_hook_raises_is_offline_and_leaves_nothing_behind(install: InstallPlugin):
    install(
        "bad",
        CONNECTOR.format(name="BadConnector", target="bad:Connector")
        + """
    @hookimpl
    def emp_register_stores():
        raise KeyError("no region")

    @hookimpl
    def emp_job_finished(job, outcome):
        raise AssertionError("an offline plugin was called")
        """,
    )
    plugins = load_plugins()
    assert "no region" in offline("bad").message
    assert "BadConnector" not in plugins.connectors
    plugins.job_finished(decode_job("1", CANCELLED), Cancelled())


@pytest.mark.parametrize(
    ("hook", "value", "says"),
    [
        ("emp_register_connectors", "'MineConnector'", "expected a list of Registration"),
        ("emp_register_connectors", "['MineConnector']", "expected a Registration"),
        ("emp_register_connectors", "[Registration('', 'a.b:C')]", "with a name"),
        ("emp_register_stores", "[Registration('x', 'a.b.C')]", "'package.module:Class'"),
        ("emp_register_balancers", "[Registration('x', 'a:C'), Registration('x', 'a:D')]", "twice"),
        ("emp_service_mapping", "[1]", "expected a mapping"),
        ("emp_service_mapping", "{'servces': {}}", "expected the sections workers, services, connectors"),
        ("emp_service_mapping", "{'services': [1]}", "entries by name"),
        ("emp_settings", "[int]", "expected an attrs class"),
    ],
)
def test_a_wrong_answer_is_told_by_plugin_hook_and_value(install: InstallPlugin, hook: str, value: str, says: str):
    install("bad", f"@hookimpl\ndef {hook}():\n    return {value}\n")
    bad = offline("bad")
    assert bad.error_type == "PluginError"
    assert "the plugin bad" in bad.message
    assert hook in bad.message
    assert says in bad.message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("@hookimpl\ndef emp_job_finished(job, outcome, mood):\n    pass\n", "mood"),
        ("@hookimpl\ndef emp_register_conectors():\n    return []\n", "did you mean 'emp_register_connectors'?"),
        ("@hookimpl(wrapper=True)\ndef emp_settings():\n    return (yield)\n", "nothing to wrap"),
    ],
)
def test_a_hook_that_does_not_exist_or_fit_takes_the_plugin_offline(install: InstallPlugin, source: str, says: str):
    install("bad", source)
    assert says in str(offline("bad"))


def test_a_hook_of_a_later_version_may_be_marked_optional(install: InstallPlugin):
    install("new", "@hookimpl(optionalhook=True)\ndef emp_of_tomorrow(job):\n    return 1\n")
    assert "new" in {one.name for one in load_plugins().loaded}


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ("emp_register_connectors", "[Registration('Same', 'a:B')]", "connector 'Same'"),
        ("emp_register_installers", "[Registration('Same', 'a:B')]", "installer 'Same'"),
        ("emp_register_stores", "[Registration('same', 'a:B')]", "store 'same'"),
        ("emp_register_balancers", "[Registration('same', 'a:B')]", "balancer 'same'"),
        ("emp_service_mapping", "{'workers': {'same': {}}}", "mapping's workers 'same'"),
        ("emp_service_mapping", "{'services': {'same': {}}}", "mapping's services 'same'"),
    ],
)
def test_two_plugins_with_the_same_name_for_a_thing_are_refused_by_name(
    install: InstallPlugin, one: str, other: str, what: str
):
    install("first", f"@hookimpl\ndef {one}():\n    return {other}\n", version="1.1")
    install("second", f"@hookimpl\ndef {one}():\n    return {other}\n", version="2.2")
    with pytest.raises(PluginError) as caught:
        load_plugins()
    assert what in caught.value.message
    assert "first (emp-first 1.1)" in caught.value.message
    assert "second (emp-second 2.2)" in caught.value.message


def test_two_plugins_of_the_same_name_are_refused_by_their_distributions(install: InstallPlugin):
    install("same", "", distribution="emp-one")
    install("same", "", distribution="emp-other")
    with pytest.raises(PluginError, match=r"emp-one 1\.0 .*emp-other 1\.0|emp-other 1\.0 .*emp-one 1\.0"):
        load_plugins()


async def test_a_connector_that_does_not_import_says_why_instead_of_ending_the_worker(
    install: InstallPlugin, site: Path
):
    (site / "needs_torch.py").write_text("import torch_that_is_not_there\n")
    install("torchy", CONNECTOR.format(name="TorchyConnector", target="needs_torch:TorchyConnector"))
    plugins = load_plugins()
    assert plugins.offline_for("TorchyConnector") is None
    connector = plugins.connector_class("TorchyConnector")(ServiceConfig("torchy"))
    health = await connector.check_health()
    assert not health.ok
    assert health.reason is not None
    assert "torch_that_is_not_there" in health.reason
    assert "torchy" in health.reason
    with pytest.raises(ServiceUnavailable, match="torch_that_is_not_there"):
        await connector.connect()
    assert await connector.can_process_job(decode_job("1", CANCELLED)) is not None


async def test_the_connector_of_an_offline_plugin_says_why_the_plugin_is_offline(install: InstallPlugin):
    install("my-art", "import there_is_no_such_module")
    plugins = load_plugins()
    health = await plugins.connector_class("MyArtWebSocketConnector")(ServiceConfig("my-art")).check_health()
    assert not health.ok
    assert "there_is_no_such_module" in str(health.reason)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("Thing = 1", "is not a subclass of emp_core.Connector"),
        (
            "from emp_core.connectors.base import Connector\nclass Thing(Connector):\n    service_type = 'x'",
            "process_job",
        ),
        ("", "AttributeError"),
    ],
)
async def test_a_target_that_is_no_connector_says_so(install: InstallPlugin, site: Path, body: str, says: str):
    (site / "odd_thing.py").write_text(body)
    install("odd", CONNECTOR.format(name="OddConnector", target="odd_thing:Thing"))
    health = await load_plugins().connector_class("OddConnector")(ServiceConfig("odd")).check_health()
    assert says in str(health.reason)


def test_an_unknown_connector_is_refused_with_the_close_name():
    with pytest.raises(PluginError, match="did you mean 'EchoConnector'"):
        load_plugins().connector_class("EkkoConnector")


def test_plugins_add_commands_and_one_that_fails_or_clashes_loses_only_its_own(install: InstallPlugin):
    source = """
        import click

        @hookimpl
        def emp_add_commands(cli):
            cli.add_command(click.Command({!r}))
            {}
        """
    install("one", source.format("fine", "pass"))
    install("two", source.format("jobs", "pass"))
    install("three", source.format("half", "raise RuntimeError('broken')"))
    cli = click.Group(commands={"jobs": (jobs := click.Command("jobs"))})
    problems = add_commands(cli)
    assert {"jobs", "fine"} <= set(cli.commands)
    assert "half" not in cli.commands
    assert cli.commands["jobs"] is jobs
    assert any("two" in str(one) and "jobs" in str(one) for one in problems)
    assert any("three" in str(one) and "broken" in str(one) for one in problems)


def test_what_a_plugin_raises_when_a_job_has_finished_reaches_neither_the_caller_nor_the_others(
    install: InstallPlugin, site: Path
):
    install("a", "@hookimpl\ndef emp_job_finished(job):\n    raise RuntimeError('broken')\n")
    install("b", "told = []\n\n@hookimpl\ndef emp_job_finished(job, outcome):\n    told.append((job.id, outcome))\n")
    plugins = load_plugins()
    plugins.job_finished(decode_job("7", CANCELLED), Cancelled())
    assert sys.modules["emp_b_plugin"].told == [("7", Cancelled())]


def test_loading_the_plugins_imports_no_connector(install: InstallPlugin, site: Path):
    (site / "heavy.py").write_text("raise AssertionError('imported')\n")
    install("heavy", CONNECTOR.format(name="HeavyConnector", target="heavy:HeavyConnector"))
    program = """
import json, sys
from emp_core.plugins.manager import load_plugins
plugins = load_plugins()
print(json.dumps({
    "listed": [one.name for one in plugins.listing()],
    "imported": [name for name in ("heavy", "emp_core.connectors.echo", "redis", "httpx") if name in sys.modules],
}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={"PYTHONPATH": str(site)}, check=False
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"echo", "heavy"} <= set(said["listed"])
    assert said["imported"] == []

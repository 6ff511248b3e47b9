"""Strategies by name."""

from collections.abc import Callable

import pytest

from emp_core.endpoints.balancers import BALANCERS, DEFAULT_BALANCER, Balancer
from emp_core.errors import ConfigError, PluginError
from emp_core.plugins.balancers import make_balancer
from emp_core.plugins.manager import load_plugins

InstallPlugin = Callable[..., None]

LAST = """
    from emp_core.endpoints.balancers import Balancer

    dict = dict

    class Last(Balancer):
        def choose(self, candidates, kind):
            return candidates[-1]

    @hookimpl
    def emp_register_balancers():
        return [Registration({name!r}, "emp_last_plugin:{target}")]
"""


@pytest.mark.parametrize("name", BALANCERS)
def test_the_cores_strategies_are_there_without_any_plugin(name: str) -> None:
    assert isinstance(make_balancer(name), Balancer)
    assert DEFAULT_BALANCER in BALANCERS


def test_each_pool_gets_a_balancer_of_its_own() -> None:
    assert make_balancer("fastest") is not make_balancer("fastest")


def test_a_plugins_strategy_is_found_by_its_name(install: InstallPlugin) -> None:
    install("last", LAST.format(name="last_one", target="Last"))
    assert type(make_balancer("last_one")).__name__ == "Last"


def test_an_unknown_strategy_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="did you mean 'least_loaded'"):
        make_balancer("least-loaded")
    with pytest.raises(ConfigError, match="known are fastest, least_loaded, priority, round_robin"):
        make_balancer("?")


def test_a_plugin_whose_strategy_is_none_is_named(install: InstallPlugin) -> None:
    install("last", LAST.format(name="last_one", target="dict"))
    with pytest.raises(PluginError, match="emp_last_plugin:dict of the plugin last makes no balancer"):
        make_balancer("last_one")


def test_a_plugin_may_not_take_the_name_of_a_strategy_of_the_cores(install: InstallPlugin) -> None:
    install("last", LAST.format(name="fastest", target="Last"))
    [offline] = [one for one in load_plugins().offline if one.name == "last"]
    assert "a strategy of emp-core's own" in offline.reason

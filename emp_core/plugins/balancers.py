"""From a strategy's name to a balancer: the core's own, or a plugin's."""

from emp_core.endpoints.balancers import BALANCERS, Balancer
from emp_core.errors import ConfigError, PluginError
from emp_core.plugins.loaded import Plugins, known_names
from emp_core.plugins.manager import load_plugins

__all__ = ["make_balancer"]


def make_balancer(name: str, plugins: Plugins | None = None) -> Balancer:
    """A new balancer of this strategy.

    Args:
        plugins: where to look besides the core; the installed ones when not given.

    Raises:
        ConfigError: nobody has it; lists the known ones.
        PluginError: a plugin has it and it cannot be used.
    """
    if name in BALANCERS:
        return BALANCERS[name]()
    plugins = load_plugins() if plugins is None else plugins
    registered = plugins.balancers.get(name)
    if registered is None:
        raise ConfigError(
            f"there is no strategy {name!r} for choosing servers",
            hint=known_names(name, [*BALANCERS, *plugins.balancers]),
        )
    made = plugins.load_target(registered)()
    if not isinstance(made, Balancer):
        raise PluginError(
            f"{registered.registration.target} of the plugin {registered.plugin} makes no balancer",
            hint="it must be a subclass of emp_core.Balancer",
        )
    return made

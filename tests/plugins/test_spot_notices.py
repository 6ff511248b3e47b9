"""Plugins bring sources of spot notices."""

from collections.abc import Callable

import pytest

from emp_core.config import Settings
from emp_core.errors import PluginError
from emp_core.plugins.manager import load_plugins
from emp_core.worker.notices import notices_of

InstallPlugin = Callable[..., None]


def test_a_plugins_source_is_asked_with_the_environment(install: InstallPlugin):
    install(
        "cloud",
        """
        from emp_core.worker.notices import SpotNotice

        class Ours(SpotNotice):
            name = "ours"

            async def wait(self):
                return "going"

        def make(environ):
            return Ours() if environ.get("OURS") else None

        def wrong(environ):
            return "ours"

        @hookimpl
        def emp_register_spot_notices():
            return [Registration("ours", "emp_cloud_plugin:make")]
        """,
    )
    plugins = load_plugins()
    assert notices_of(Settings(), plugins, {}) == ()
    [source] = notices_of(Settings(), plugins, {"OURS": "1"})
    assert source.name == "ours"


def test_a_plugins_source_that_is_none_is_refused(install: InstallPlugin):
    install(
        "cloud",
        """
        def wrong(environ):
            return "ours"

        @hookimpl
        def emp_register_spot_notices():
            return [Registration("ours", "emp_cloud_plugin:wrong")]
        """,
    )
    with pytest.raises(PluginError, match="makes no source of spot notices"):
        notices_of(Settings(), load_plugins(), {})

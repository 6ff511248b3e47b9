"""The page about connectors names what connectors have, and the tutorial shows the template as it is."""

import inspect
import re
from collections.abc import Iterable

import pytest
from jsonschema import Draft202012Validator

from emp_core.connectors.base import Connector, ServiceConfig
from emp_core.connectors.context import JobContext
from emp_core.connectors.http import HTTPConnector, RequestOptions
from emp_core.connectors.payload_schema import payload_schema
from emp_core.connectors.websocket import Socket, SocketOptions, WebSocketConnector
from emp_core.plugins.template import template_files
from tests.connectors.payload_classes import Everything

from .pages import DOCS, page

PAGE = page(DOCS / "reference" / "connectors.md")
TUTORIAL = page(DOCS / "tutorial" / "first-connector.md")
FOLDER = "emp-shout/"


def names(rows: Iterable[str]) -> set[str]:
    return {re.split(r"\W", row)[0] for row in rows}


def public(kind: type) -> set[str]:
    """Its methods and attributes, those that are set in `__init__` among them."""
    assigned = re.findall(r"self\.([a-z]\w*)(?::.*)? =|self\.([a-z]\w*), ", inspect.getsource(vars(kind)["__init__"]))
    found = {*vars(kind), *vars(kind).get("__annotations__", {}), *(name for pair in assigned for name in pair)}
    return {name for name in found if name and not name.startswith("_")}


@pytest.mark.parametrize("kind", [Connector, JobContext, HTTPConnector])
def test_everything_that_a_connector_has_is_on_the_page_and_nothing_else(kind: type) -> None:
    inherited = {name for base in kind.__mro__[1:] for name in vars(base)} if kind is HTTPConnector else set()
    assert names(PAGE.section(kind.__name__).table) == public(kind) - inherited


def test_everything_about_web_sockets_is_on_the_page_and_nothing_else() -> None:
    opened_by_the_connector = {"run"}
    kinds = (WebSocketConnector, Socket, SocketOptions)
    known = {name for kind in kinds for name in (*vars(kind), *vars(kind).get("__annotations__", {}))}
    shown = names(PAGE.section("WebSocketConnector").table)
    assert shown == {name for name in known if not name.startswith("_")} - opened_by_the_connector


def test_every_option_of_a_request_is_on_the_page() -> None:
    assert PAGE.section("Requests").table.keys() == set(RequestOptions.__annotations__)


def test_every_keyword_of_the_schemas_is_on_the_page() -> None:
    shown = PAGE.section("Payload classes").text
    told = {part for row in PAGE.section("Payload classes").rows for part in re.findall(r"`(\w+)`", row[-1])}
    schema = payload_schema(Everything)
    Draft202012Validator.check_schema(schema)
    kinds = set(re.findall(r"'type': '(\w+)'", str(schema)))
    assert kinds <= told
    assert all(f"`{name}`" in shown for name in ("ge", "gt", "le", "lt", "in_", "matches_re", "min_len", "max_len"))


def test_the_tutorial_shows_the_template_as_it_is() -> None:
    template = dict(template_files())
    shown = {block.marks["file"]: block.text for block in TUTORIAL.blocks if "file" in block.marks}
    own = {name.removeprefix(FOLDER): text for name, text in shown.items() if name.startswith(FOLDER)}
    assert {
        "emp_shout/connector.py",
        "emp_shout/plugin.py",
        "emp_shout/settings.py",
        "tests/test_connector.py",
    } <= own.keys()
    assert own == {name: template[name] for name in own}


def test_a_connector_to_a_simple_service_is_under_60_lines_in_the_tutorial() -> None:
    [connector] = [block.text for block in TUTORIAL.blocks if block.marks.get("file", "").endswith("connector.py")][:1]
    lines = len(connector.splitlines())
    assert lines < 60
    assert f"{lines} lines" in TUTORIAL.text


def test_the_toml_of_the_tutorial_stands_in_the_template() -> None:
    project = dict(template_files())["pyproject.toml"]
    assert all(block.text in project for block in TUTORIAL.blocks if block.language == "toml")


def test_every_field_of_a_service_config_is_on_the_page() -> None:
    row = PAGE.section("Connector").table["config"][0]
    assert all(f"`{name}`" in row for name in ServiceConfig.__annotations__)

"""The connectors of the core keep to what is asked of every connector."""

from typing import Any, ClassVar

from emp_core.connectors.echo import EchoConnector
from emp_core.testing.conformance.connector import ConnectorConformance

from .shout import ShoutConformance
from .studio import StudioConformance


class TestEchoConnector(ConnectorConformance):
    connector_class = EchoConnector
    payloads = (
        {"hello": "world", "$echo": {"seconds": 0.01, "steps": 3}},
        {"number": 7, "$echo": {"seconds": 0.01, "steps": 2, "artifact": {"name": "a.txt", "text": "artifact"}}},
    )
    bad_payloads = ({"$echo": {"seconds": "5"}}, {"$echo": {"unknown": 1}}, {"$echo": 7})
    long_payload: ClassVar[Any] = {"$echo": {"seconds": 3600, "steps": 10_000}}


class TestShoutConnector(ShoutConformance):
    pass


class TestStudioConnector(StudioConformance):
    pass

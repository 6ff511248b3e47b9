"""Ports for servers that a test starts."""

import socket
from contextlib import ExitStack

import pytest

from emp_core.testing import ports
from emp_core.testing.ports import free_port, free_ports


def test_as_many_ports_are_found_as_are_wanted_and_each_can_be_listened_on() -> None:
    found = free_ports(20, beside=(1, 10_000))
    assert len(found) == 20
    with ExitStack() as servers:
        for port in found:
            for each in (port, port + 1, port + 10_000):
                servers.enter_context(socket.create_server(("127.0.0.1", each)))


@pytest.mark.parametrize("beside", [0, 1])
def test_a_port_that_somebody_listens_on_or_that_has_such_a_neighbour_is_not_given(
    monkeypatch: pytest.MonkeyPatch, beside: int
) -> None:
    port = free_port()
    monkeypatch.setattr(ports, "_PORTS", range(port - beside, port - beside + 1))
    with socket.create_server(("127.0.0.1", port)), pytest.raises(RuntimeError, match=r"1 free ports .*: 0 found"):
        free_port(beside=(beside,))

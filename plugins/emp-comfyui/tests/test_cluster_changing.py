"""Servers of a pool that come, go and change while it runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest
from emp_comfyui.cluster.configuration import ClusterConfiguration
from emp_comfyui.cluster.hosts import Hosts
from emp_comfyui.cluster.pool import ComfyUIServerPool
from emp_comfyui.cluster.server import ComfyUIServer

from emp_core.connectors.base import ServiceConfig
from emp_core.endpoints.endpoint import EndpointStatus
from emp_core.errors import ConfigError

from .clusters import QUICK, fakes, until
from .rig import one_image, slow_image

if TYPE_CHECKING:
    from emp_comfyui.cluster.results import RunResult


async def test_servers_come_and_go_while_workflows_run(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, ComfyUIServerPool([servers.server("a")], environ=QUICK) as pool:
        hold = servers["a"].hold("ProbeSlow")
        done: list[RunResult] = []

        async def run() -> None:
            done.append(await pool.run(slow_image()))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await hold.reached()
            pool.add(servers.server("b"))
            pool.remove("a")
            assert [one.name for one in pool.servers] == ["b"]
            assert (await pool.run(one_image())).server == "b"
            hold.release()
        assert [one.server for one in done] == ["a"]
        with pytest.raises(ConfigError, match="is there already"):
            pool.add(ComfyUIServer("again", servers["b"].host, servers["b"].port))
        with pytest.raises(ConfigError, match="no server 'a'"):
            pool.remove("a")


async def test_connections_to_a_server_that_moved_or_was_removed_are_closed() -> None:
    hosts = Hosts(ServiceConfig("comfyui", {}))
    first, moved, other = ComfyUIServer("a", "h1"), ComfyUIServer("a", "h2"), ComfyUIServer("b", "h3")
    hosts.have([first])
    async with hosts.connector("a") as connector:
        used = connector.client
        hosts.have([moved, other])
        async with hosts.connector("a") as its_new_place:
            assert its_new_place.base_url == moved.url
            new = its_new_place.client
        assert not used.is_closed, "a workflow still runs there"
    assert used.is_closed
    hosts.have([other])
    async with hosts.connector("b") as connector:
        left = connector.client
    assert new.is_closed
    await hosts.aclose()
    assert left.is_closed


async def test_what_is_said_anew_of_a_servers_folders_counts_at_once() -> None:
    hosts = Hosts(ServiceConfig("comfyui", {}))
    hosts.have([ComfyUIServer("a", "h1")])
    async with hosts.connector("a") as connector:
        assert "output" not in connector.settings.folders
    hosts.have([ComfyUIServer("a", "h1", dir_local="/mnt/comfy")])
    async with hosts.connector("a") as connector:
        assert connector.settings.folders["output"] == Path("/mnt/comfy/output")
    await hosts.aclose()


async def test_priorities_can_be_changed_while_it_runs(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers, servers.pool(tmp_path, EMP_COMFYUI_BALANCER="priority") as pool:
        pool.set_priority("a", 2)
        assert [(await pool.run(one_image())).server for _ in range(3)] == ["b", "b", "b"]
        pool.set_priority("b", 3)
        assert [(await pool.run(one_image())).server for _ in range(3)] == ["a", "a", "a"]


async def test_what_is_written_into_the_file_of_changes_is_taken_up(tmp_path: Path) -> None:
    async with fakes("a", "b") as servers:
        pool = servers.pool(tmp_path)
        pool._endpoints._on_event = None
        assert pool._follower is not None
        changes = pool._follower._configuration.changes
        async with pool:
            changes.change("a", enabled=False)
            await until(lambda: pool.states()[0].status is EndpointStatus.DISABLED)
            assert [(await pool.run(one_image())).server for _ in range(2)] == ["b", "b"]
            changes.path.write_text("{ broken")
            changes.path.write_text('[{"name": "b", "removed": true}]')
            await until(lambda: [one.name for one in pool.servers] == ["a"])
            changes.reset()
            await until(lambda: [one.name for one in pool.servers] == ["a", "b"])
            assert all(server.enabled for server in pool.servers)


async def test_a_server_that_the_program_has_under_another_name_disturbs_no_other_change(tmp_path: Path) -> None:
    async with fakes("a", "b", "c") as servers:
        environ = {**servers.environ(tmp_path), "NUKE_COMFYUI_SERVERS": servers.described("a")}
        async with ComfyUIServerPool.from_env(environ) as pool:
            pool.add(servers.server("b"))
            changes = ClusterConfiguration.changes_of(environ)
            changes.change("other", ip=servers["b"].host, port=servers["b"].port)
            changes.change("c", ip=servers["c"].host, port=servers["c"].port)
            await until(lambda: "c" in {server.name for server in pool.servers})
            assert [server.name for server in pool.servers] == ["a", "b", "c"]
            assert (await pool.run(one_image(), server="c")).server == "c"


async def test_what_the_program_changed_itself_outlives_a_change_of_the_file(tmp_path: Path) -> None:
    async with fakes("a", "b", "c") as servers:
        pool = ComfyUIServerPool.from_env(
            {**servers.environ(tmp_path), "NUKE_COMFYUI_SERVERS": servers.described("a", "b")}
        )
        assert pool._follower is not None
        pool.add(servers.server("c"))
        pool._follower._configuration.changes.change("a", priority=7)
        await pool._follower.look()
        assert [(one.name, one.priority) for one in pool.servers] == [("a", 7), ("b", 1), ("c", 1)]
        await pool.aclose()

"""What can be made to go wrong with the fake server goes wrong, while it runs, and nothing else with it."""

import contextlib
import socket

import anyio
import attrs
import httpx
import pytest
from anyio.lowlevel import checkpoint
from emp_comfyui.testing import FakeComfyUI, Faults, HttpFault

from .fake_client import Watcher, one_image, slow_image, types, watching


@pytest.mark.parametrize("steps", range(5))
async def test_a_connection_that_comes_in_while_the_server_is_killed_is_cut(steps: int) -> None:
    """Whatever step of the event loop the end falls into."""
    async with FakeComfyUI() as server:
        with socket.create_connection((server.host, server.port)) as client:
            client.setblocking(False)
            for _ in range(steps):
                await checkpoint()
            await server.kill()
            with anyio.fail_after(5):
                await anyio.wait_readable(client)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""


async def test_a_killed_server_cuts_its_sockets_and_listens_no_more() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        hold = server.hold("ProbeSlow", at_step=2)
        await client.submit(slow_image())
        await hold.reached()
        await server.kill()
        while not client.socket.closed:
            await client.socket.receive(timeout=5)
        assert client.socket.close_code == 1006
        with pytest.raises(httpx.ConnectError):
            async with httpx.AsyncClient() as plain:
                await plain.get(server.url + "/queue")


async def test_a_restarted_server_has_its_files_and_nothing_else() -> None:
    async with FakeComfyUI() as server:
        url = server.url
        async with watching(url) as client:
            await client.run(one_image())
            server.pause_queue()
            await client.submit(one_image(1))
        await server.restart()
        server.resume_queue()
        async with watching(url) as client:
            assert server.url == url
            assert await client.json("/history") == {}
            assert await client.json("/queue") == {"queue_running": [], "queue_pending": []}
            entry = await client.run(one_image())
            assert await client.status("/view", filename="one_00001_.png") == 200
            assert entry["outputs"]["2"]["images"][0]["filename"] == "one_00002_.png", "not cached, numbers go on"
            assert entry["prompt"][0] == 0


async def test_a_server_may_die_between_taking_a_prompt_and_answering() -> None:
    async with FakeComfyUI() as server, httpx.AsyncClient(base_url=server.url) as plain:
        server.fail(HttpFault("/prompt", "die", method="POST"))
        with pytest.raises(httpx.TransportError):
            await plain.post("/prompt", json={"prompt": one_image()})
        await server.until(lambda: not server.alive)
        assert len(server.prompts) == 1
        await server.restart()
        assert (await plain.get("/history")).json() == {}


async def test_a_lost_answer_leaves_the_prompt_in_the_server() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        fault = server.fail(HttpFault("/prompt", "lose_answer", method="POST"))
        async with httpx.AsyncClient(base_url=server.url) as plain:
            with pytest.raises(httpx.TransportError):
                await plain.post("/prompt", json={"prompt": one_image(), "prompt_id": "mine", "client_id": "me"})
        await client.until("end")
        assert "mine" in server.history
        assert fault.seen == 1


async def test_sockets_can_be_dropped_alone() -> None:
    async with FakeComfyUI() as server, watching(server.url, "a") as one, watching(server.url, "b") as other:
        await server.until(lambda: len(server.sockets) == 2)
        assert server.drop_sockets("a") == 1
        while not one.socket.closed:
            await one.socket.receive(timeout=5)
        assert one.socket.close_code == 1006
        await server.until(lambda: list(server.sockets) == ["b"])
        await other.submit(one_image(), client_id="b")
        await other.until("end")


async def test_a_server_may_refuse_new_connections_and_keep_the_old() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        await client.until("status")
        server.stop_listening()
        async with httpx.AsyncClient(base_url=server.url) as plain:
            with pytest.raises(httpx.ConnectError):
                await plain.get("/queue")
            await client.socket.send_str("still here")
            await server.until(lambda: server.sockets["me"].received == ["still here"])
            await server.resume_listening()
            assert (await plain.get("/queue")).status_code == 200


async def test_a_silent_socket_is_open_and_says_nothing() -> None:
    async with FakeComfyUI(faults=Faults(silent_sockets=True)) as server, watching(server.url) as client:
        answer = await client.submit(one_image())
        await server.until(lambda: answer["prompt_id"] in server.history and server.hub.idle)
        with pytest.raises(TimeoutError):
            await client.socket.receive(timeout=0.02)
        assert not client.socket.closed


@pytest.mark.parametrize("kind", ["executed", "executing", "progress", "PREVIEW_IMAGE"])
async def test_frames_of_a_type_can_be_left_out(kind: str) -> None:
    async with FakeComfyUI(faults=Faults(drop_frames={kind})) as server, watching(server.url) as client:
        await client.submit(slow_image(preview="jpeg"))
        await client.until("execution_success")
        assert (kind if kind != "PREVIEW_IMAGE" else "binary") not in types(client.frames)
        assert {"progress_state", "executed", "binary"} & set(types(client.frames))


@pytest.mark.parametrize(
    ("fault", "status", "text"),
    [
        (HttpFault("/history/*", "status", status=502, body="bad gateway"), 502, "bad gateway"),
        (HttpFault("/history/*", "garbage"), 200, '{"prompt_id": "half an ans'),
        (HttpFault("/history/*", "oversized", size=1000), 200, '"' + "x" * 998 + '"'),
    ],
)
async def test_chosen_routes_answer_badly_as_often_as_asked(fault: HttpFault, status: int, text: str) -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        server.fail(attrs.evolve(fault, times=2))
        for path in ("/history/x", "/api/history/x"):
            async with client.session.get(path) as response:
                assert (response.status, await response.text()) == (status, text)
        assert await client.json("/history/x") == {}
        assert await client.json("/queue") == {"queue_running": [], "queue_pending": []}


async def test_a_request_can_hang_until_the_server_dies() -> None:
    async with FakeComfyUI() as server, httpx.AsyncClient(base_url=server.url, timeout=0.05) as plain:
        server.fail(HttpFault("*", "hang", times=None))
        with pytest.raises(httpx.ReadTimeout):
            await plain.get("/queue")
        with pytest.raises(httpx.ReadTimeout):
            await plain.post("/prompt", json={"prompt": one_image()})
        assert server.prompts == []


async def test_a_slow_answer_takes_the_time_it_was_given() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with FakeComfyUI(sleep=sleep) as server, watching(server.url) as client:
        server.fail(HttpFault("/queue", "delay", delay_s=30))
        assert await client.status("/queue") == 200
        assert slept == [30]


async def test_a_connection_can_be_dropped_without_an_answer() -> None:
    async with FakeComfyUI() as server, httpx.AsyncClient(base_url=server.url) as plain:
        server.fail(HttpFault("/prompt", "drop", method="POST"))
        with pytest.raises(httpx.TransportError):
            await plain.post("/prompt", json={"prompt": one_image()})
        assert server.prompts == []


async def test_a_history_entry_can_come_late_by_some_reads_or_never() -> None:
    async with FakeComfyUI(faults=Faults(history_late_by=2)) as server, watching(server.url) as client:
        answer = await client.submit(one_image(), prompt_id="late")
        await client.until("end")
        found = [bool(await client.json(f"/history/{answer['prompt_id']}")) for _ in range(3)]
        assert found == [False, False, True]
        server.faults = Faults(history_never=True)
        assert await client.json("/history/late") == {}


async def test_outputs_can_be_missing_or_none_at_all() -> None:
    async with FakeComfyUI(faults=Faults(missing_outputs=True)) as server, watching(server.url) as client:
        entry = await client.run(one_image())
        assert await client.status("/view", **entry["outputs"]["2"]["images"][0]) == 404
        server.faults = Faults(no_outputs=True)
        entry = await client.run(one_image(9))
        assert (entry["outputs"], entry["status"]["status_str"]) == ({}, "success")


async def test_a_node_can_run_out_of_memory() -> None:
    async with FakeComfyUI(faults=Faults(out_of_memory={"SaveImage"})) as server, watching(server.url) as client:
        entry = await client.run(one_image())
        kind, error = entry["status"]["messages"][-1]
        assert (kind, error["exception_type"], error["node_id"]) == ("execution_error", "torch.OutOfMemoryError", "2")
        assert error["exception_message"].startswith("CUDA out of memory")


async def test_an_interrupt_can_be_lost() -> None:
    async with FakeComfyUI(faults=Faults(lost_interrupts=1)) as server, watching(server.url) as client:
        hold = server.hold("ProbeSlow", at_step=2)
        await client.submit(slow_image())
        await hold.reached()
        assert await client.post("/interrupt") == 200
        hold.release()
        await client.until("end")
        assert "execution_success" in types(client.frames)
        assert [interrupt.effective for interrupt in server.interrupts] == [False]


async def test_a_hold_stops_a_node_until_it_is_released() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        hold = server.hold("2")
        await client.submit(one_image())
        await hold.reached()
        assert [item[2] for item in server.queue.running] == [one_image()]
        await server.until(lambda: server.hub.current_node_id == "2")
        hold.release()
        await client.until("end")
        assert (await client.run(one_image(5)))["status"]["status_str"] == "success", "a hold stops once"


async def test_an_interrupt_during_a_hold_works_when_the_node_reports() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        hold = server.hold("ProbeSlow", at_step=2)
        await client.submit(slow_image())
        await hold.reached()
        await client.post("/interrupt", {"prompt_id": server.prompts[0].prompt_id})
        hold.release()
        await client.until("end")
        progress = [f for f in client.frames if isinstance(f, dict) and f["type"] == "progress"]
        assert [frame["data"]["value"] for frame in progress] == [1]
        assert "execution_interrupted" in types(client.frames)


async def test_a_paused_queue_takes_prompts_and_runs_none() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        server.pause_queue()
        await client.submit(one_image())
        queue = await client.json("/queue")
        assert (len(queue["queue_pending"]), queue["queue_running"]) == (1, [])
        server.resume_queue()
        await client.until("end")


async def test_waiting_for_a_condition_that_never_holds_ends() -> None:
    async with FakeComfyUI() as server:
        with pytest.raises(TimeoutError):
            await server.until(lambda: False, timeout=0.02)


async def test_faults_may_be_changed_in_the_middle_of_a_prompt() -> None:
    async with FakeComfyUI() as server, watching(server.url) as client:
        hold = server.hold("ProbeSlow", at_step=2)
        await client.submit(slow_image())
        await hold.reached()
        await server.until(lambda: server.hub.idle)
        server.faults = Faults(drop_frames={"progress", "progress_state"})
        hold.release()
        await client.until("end")
        assert types(client.frames).count("progress") == 1


async def test_nothing_runs_on_when_the_server_is_left_in_the_middle_of_a_prompt() -> None:
    with anyio.fail_after(2):
        async with FakeComfyUI() as server, watching(server.url) as client:
            hold = server.hold("ProbeSlow", at_step=1)
            await client.submit(slow_image())
            await hold.reached()
            server.fail(HttpFault("/queue", "hang"))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_ask, client)
                await server.until(lambda: server.faults.http[0].seen == 1)
                tasks.cancel_scope.cancel()


async def _ask(client: Watcher) -> None:
    await client.status("/queue")

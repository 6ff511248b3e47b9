"""`emp workers`: who is alive, and draining them from wherever one is."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from .conftest import Emp, Hub, environ_of, ready, start


def test_live_workers_are_listed(on_hub: Emp, hub: Hub):
    [worker] = on_hub("workers", "--json").data
    assert (worker["id"], list(worker["services"])) == (hub.worker_id, ["echo"])
    header, line = on_hub("workers").out.splitlines()
    assert header.split()[:3] == ["WORKER", "SERVICE", "STATE"]
    assert line.split()[:3] == [hub.worker_id, "echo", "ready"]


@pytest.mark.parametrize("memory", ['"24 GB"', "[24576,24576]", "NaN"])
def test_what_is_odd_about_one_worker_keeps_nobody_from_the_list(emp: Emp, redis_url: str, namespace: str, memory: str):
    facts = {
        "services": '{"echo":{"connector":"EchoConnector"}}',
        "resources": f'{{"gpu_model":"A40","gpu_memory_mb":{memory},"cpu_cores":8}}',
    }
    with Redis.from_url(redis_url, protocol=2) as client:
        for name, broken in (("odd", {}), ("unreadable", {"services": "{"})):
            told: Any = {"worker_id": name, "machine_id": "m", **facts, **broken}
            client.zadd(f"{namespace}workers", {name: 1})
            client.hset(f"{namespace}worker:{name}:capabilities", mapping=told)
            client.set(f"{namespace}worker:{name}:heartbeat", "s", ex=60)
    shown = emp("workers", environ={"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace})
    assert (shown.code, "unreadable" in shown.err) == (0, True)
    assert [line.split()[0] for line in shown.out.splitlines()] == ["WORKER", "odd"]
    assert shown.out.rstrip().endswith("A40, 8 cores")


def test_workers_that_are_drained_end_as_after_a_signal(emp: Emp, redis_url: str, namespace: str, tmp_path: Path):
    where = {"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace}
    process = start("worker", "echo:2", "--json", environ=environ_of(tmp_path, **where), stderr=subprocess.DEVNULL)
    try:
        first, second = (one["id"] for one in ready(process)["workers"])
        told = emp("workers", "drain", first, environ=where)
        assert (told.code, told.out, told.err) == (0, f"{first}  was told to drain\n", "")
        assert emp("workers", "drain", second, "--json", environ=where).data == [{"id": second}]
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert emp("workers", "--json", environ=where).data == []


def test_a_worker_that_is_not_alive_does_not_keep_others_from_being_drained(
    emp: Emp, redis_url: str, namespace: str, tmp_path: Path
):
    where = {"HUB_REDIS_URL": redis_url, "EMP_NAMESPACE": namespace}
    process = start("worker", "echo", "--json", environ=environ_of(tmp_path, **where), stderr=subprocess.DEVNULL)
    try:
        [worker] = (one["id"] for one in ready(process)["workers"])
        ended = emp("workers", "drain", "nobody@nowhere", worker, "--json", environ=where)
        assert (ended.code, ended.error["code"], ended.data) == (2, "worker_not_found", [{"id": worker}])
        assert "`emp workers`" in ended.error["hint"]
        process.communicate(timeout=20)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0


def test_a_worker_has_to_be_named(emp: Emp):
    assert emp("workers", "drain").code == 2

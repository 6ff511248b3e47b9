import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import ConfigError
from emp_core.services.ports import instance_port, plan_ports
from emp_core.services.schema import ServiceEntry, ServiceType


def entry(*ports: int, instances: int = 1, increment: int = 1, gpu: bool = True, kind: str = "pm2_service"):
    return ServiceEntry(
        connector="C",
        type=ServiceType(kind),
        is_gpu_bound=gpu,
        service_instances_per_gpu=instances,
        ports=ports,
        port_increment=increment,
    )


@pytest.mark.parametrize(
    ("gpu", "instance", "instances", "increment", "port"),
    [
        (0, 0, 1, 1, 8188),
        (1, 0, 1, 1, 8189),
        (0, 1, 2, 1, 8189),
        (1, 0, 2, 1, 8190),
        (1, 1, 2, 1, 8191),
        (2, 1, 2, 10, 8238),
    ],
)
def test_ports_follow_the_formula(gpu: int, instance: int, instances: int, increment: int, port: int):
    found = instance_port(8188, gpu=gpu, instance=instance, instances_per_gpu=instances, increment=increment)
    assert found == port


@given(
    base=st.integers(1, 20_000),
    gpus=st.integers(1, 16),
    instances=st.integers(1, 8),
    increment=st.integers(1, 100),
)
def test_no_two_instances_of_a_service_share_a_port(base: int, gpus: int, instances: int, increment: int):
    planned = plan_ports({"s": entry(base, instances=instances, increment=increment)}, num_gpus=gpus)
    ports = [one.port for one in planned]
    assert len(set(ports)) == len(ports) == gpus * instances
    assert ports == sorted(ports)
    assert all(1 <= port <= 65_535 for port in ports)


@given(
    base=st.integers(-10, 70_000),
    gpu=st.integers(-1, 100),
    instance=st.integers(-1, 10),
    instances=st.integers(0, 10),
    increment=st.integers(0, 5_000),
)
def test_a_port_is_valid_or_refused(base: int, gpu: int, instance: int, instances: int, increment: int):
    try:
        port = instance_port(base, gpu=gpu, instance=instance, instances_per_gpu=instances, increment=increment)
    except ConfigError as error:
        assert error.problems  # noqa: PT017 - either may come, and both must be sound
    else:
        assert 1 <= base <= port <= 65_535


def test_collisions_are_named_with_all_who_share_the_port():
    services = {"one": entry(8188), "other": entry(8189, gpu=False), "api": entry(8188, kind="external_api")}
    with pytest.raises(ConfigError) as caught:
        plan_ports(services, num_gpus=2)
    assert caught.value.problems == ("port 8189 is used by one (GPU 1, instance 0) and by other (GPU 0, instance 0)",)


def test_two_base_ports_of_a_service_may_not_overlap():
    with pytest.raises(ConfigError, match=r"port 8189 is used by s \(GPU 0, instance 0, its port 2\) and by s \(GPU 1"):
        plan_ports({"s": entry(8188, 8189)}, num_gpus=2)
    assert [one.port for one in plan_ports({"s": entry(8188, 8189, increment=2)}, num_gpus=2)] == [
        8188,
        8189,
        8190,
        8191,
    ]


def test_every_port_beyond_the_last_one_is_named():
    with pytest.raises(ConfigError) as caught:
        plan_ports({"s": entry(65_534)}, num_gpus=4)
    assert len(caught.value.problems) == 2
    assert "s: port 65536 of GPU 2" in caught.value.problems[0]


def test_services_elsewhere_have_no_ports_and_those_without_gpu_run_once():
    services = {"api": entry(80, kind="external_api"), "daemon": entry(11_434, gpu=False, kind="daemon_service")}
    assert [(one.service, one.port) for one in plan_ports(services, num_gpus=8)] == [("daemon", 11_434)]


def test_without_gpus_no_gpu_service_gets_a_port():
    assert plan_ports({"s": entry(8188)}, num_gpus=0) == ()

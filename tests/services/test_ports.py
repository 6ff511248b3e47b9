import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import ConfigError
from emp_core.services.ports import instance_port


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
    ports = [
        instance_port(base, gpu=gpu, instance=instance, instances_per_gpu=instances, increment=increment)
        for gpu in range(gpus)
        for instance in range(instances)
    ]
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

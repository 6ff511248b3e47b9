"""What the settings take, and how what they do not take is told."""

import pytest

from emp_core.config import Settings, variables_of
from emp_core.errors import ConfigError
from emp_core.worker.planning import capacity_of

FAR_TOO_LARGE = ("1e18", "1e300", "9" * 16, "9" * 400)
NUMBERS = [
    *(
        "NUM_GPUS",
        "GPU_ID",
        "EMP_INPUT_MAX_BYTES",
        "EMP_INPUT_TIMEOUT_S",
        "EMP_CUSTOMER_CAP",
        "EMP_LEASE_S",
        "EMP_POLL_S",
    ),
    *("EMP_GRACE_S", "EMP_SPOT_POLL_S", "EMP_PRIORITY_STEP", "EMP_MAX_ATTEMPTS", "EMP_MAX_CRASHES", "EMP_RETRY_BASE_S"),
    *("EMP_RETRY_MAX_S", "EMP_MAX_PAYLOAD_BYTES", "EMP_MAX_RESULT_BYTES", "EMP_MAX_PENDING", "EMP_MAX_LANES"),
    *("EMP_KEEP_COMPLETED_S", "EMP_KEEP_FAILED_S", "EMP_KEEP_CANCELLED_S", "EMP_KEEP_IDEMPOTENCY_S", "EMP_EVENTS_MAX"),
    *("EMP_WAIT_REPLICAS", "EMP_REDIS_WAIT_S"),
]


def test_the_list_of_numbers_is_whole():
    told = {variable.name for variable in variables_of(Settings) if _takes(variable.parse, "1000")}
    others = {variable.name for variable in variables_of(Settings) if _takes(variable.parse, "many")}
    assert told - others - {"EMP_RETENTION"} <= set(NUMBERS)


def _takes(parse: object, text: str) -> bool:
    assert callable(parse)
    try:
        parse(text)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_that_nobody_can_mean_is_refused(name: str):
    for value in (*FAR_TOO_LARGE, "nan", "inf", "-1", "-0.5"):
        with pytest.raises(ConfigError) as refused:
            Settings.from_env({name: value})
        [problem] = refused.value.problems
        assert problem.startswith(f"{name}='{value[:200]}"), problem
        assert "': expected a " in problem
        assert len(problem) < 300


def test_all_of_them_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        Settings.from_env(dict.fromkeys(NUMBERS, "1e20"))
    assert [problem.partition("=")[0] for problem in refused.value.problems] == [
        variable.name for variable in variables_of(Settings) if variable.name in NUMBERS
    ]
    assert refused.value.exit_code == 2


def test_the_largest_values_that_are_taken_reach_redis_as_whole_numbers():
    taken = {
        "EMP_EVENTS_MAX": "1_000_000_000",
        "EMP_KEEP_FAILED_S": "3_000_000_000",
        "EMP_MAX_PAYLOAD_BYTES": "536870912",
    }
    settings = Settings.from_env(taken)
    assert (settings.events_max, settings.keep_failed_s, settings.max_payload_bytes) == (10**9, 3e9, 2**29)


@pytest.mark.parametrize(
    "value", ['{"x": NaN}', '{"x": [1e999]}', '{"x": -Infinity}', f'{{"x": 1{"0" * 400}}}', f'{{"x": 1{"0" * 5000}}}']
)
def test_a_capability_that_is_no_finite_number_is_refused(value: str):
    with pytest.raises(ConfigError) as refused:
        Settings.from_env({"EMP_CAPABILITIES": value})
    [problem] = refused.value.problems
    assert "is no finite number" in problem


@pytest.mark.parametrize("name", ["EMP_CAPABILITIES", "EMP_STORES"])
@pytest.mark.parametrize("value", ['{"x": "\\ud800"}', '{"\\udfff": 1}'])
def test_half_a_character_in_json_is_refused(name: str, value: str):
    with pytest.raises(ConfigError, match="half of a surrogate pair"):
        Settings.from_env({name: value})


@pytest.mark.parametrize(
    "name", ["WORKER_ID", "MACHINE_ID", "EMP_NAMESPACE", "EMP_POOL", "EMP_REGION", "EMP_CUSTOMERS_DENY"]
)
def test_bytes_that_are_no_text_are_refused(name: str):
    with pytest.raises(ConfigError, match="expected text in UTF-8"):
        Settings.from_env({name: "caf\udce9"})


def test_ordinary_capabilities_are_taken():
    given = '{"fast": true, "memory": 1.5e3, "count": -12, "inner": {"ü": [null]}}'
    assert Settings.from_env({"EMP_CAPABILITIES": given}).capabilities == {
        "fast": True,
        "memory": 1500.0,
        "count": -12,
        "inner": {"ü": [None]},
    }


@pytest.mark.parametrize("value", ["9" * 20, "one=1000000", "9" * 5000, "one=0"])
def test_more_jobs_at_once_than_a_worker_can_run_are_refused(value: str):
    with pytest.raises(ConfigError, match="EMP_CONCURRENCY") as refused:
        capacity_of(Settings.from_env({"EMP_CONCURRENCY": value}), "one")
    assert len(str(refused.value)) < 300

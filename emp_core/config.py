"""Settings: what the environment says, read once and frozen.

This module is the only reader of ``os.environ``. A settings class is a frozen attrs class whose fields are made with
`setting`; plugins declare theirs the same way and get them read by `load_settings`.
"""

import os
import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import attrs
from attrs import field, frozen

from emp_core.errors import ConfigError
from emp_core.log.redaction import hide_secrets
from emp_core.values import age, ages, flag, json_object, number, one_of, text, whole, words

__all__ = [
    "Settings",
    "Variable",
    "age",
    "ages",
    "environment",
    "flag",
    "json_object",
    "load_settings",
    "number",
    "one_of",
    "setting",
    "text",
    "variables_of",
    "whole",
    "words",
]

T = TypeVar("T")

_META = "emp_core.setting"
_SHOWN_MAX = 200

# What Redis, its scripts and clocks can count with, and far more than anybody can mean.
_MANY = 10**9
_CENTURY_S = 100 * 365 * 86_400
_TEXT_MAX = 512 * 2**20
"""Bytes that Redis takes as one text (``proto-max-bulk-len``)."""


@frozen
class Variable:
    """An environment variable that a settings class reads.

    Attributes:
        name: the variable.
        aliases: older or foreign names that mean the same; the first one that is set counts.
        default: what holds when none is set.
        help: one sentence for the documentation, with the unit.
        secret: whether its value must never be shown.
    """

    name: str
    parse: Callable[[str], Any]
    default: Any
    help: str
    aliases: tuple[str, ...] = ()
    secret: bool = False


def setting(
    name: str,
    *,
    default: Any,
    parse: Callable[[str], Any],
    help: str,  # noqa: A002 - the field's own word, as in click and argparse
    aliases: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    """A field of a settings class that is read from the environment variable ``name``.

    ``parse`` turns the text into the value and raises ValueError with a sentence that says what was expected. A
    callable default is called without arguments.
    """
    variable = Variable(name, parse, default, help, aliases, secret)
    if callable(default):
        return field(factory=default, metadata={_META: variable}, repr=not secret)
    return field(default=default, metadata={_META: variable}, repr=not secret)


def environment() -> dict[str, str]:
    """A copy of the process's environment."""
    return dict(os.environ)


def variables_of(settings_class: type) -> tuple[Variable, ...]:
    """The variables that a settings class reads, in the order of its fields."""
    return tuple(f.metadata[_META] for f in attrs.fields(settings_class) if _META in f.metadata)


def load_settings(settings_class: type[T], environ: Mapping[str, str]) -> T:
    """Read a settings class from ``environ``. An empty value counts as not set.

    Raises:
        ConfigError: values do not parse; lists all of them, secrets without their value.
    """
    values: dict[str, Any] = {}
    problems: list[str] = []
    for f in attrs.fields(settings_class):  # type: ignore[arg-type]  # T is an attrs class by contract
        variable: Variable | None = f.metadata.get(_META)
        if variable is None:
            continue
        name = next((n for n in (variable.name, *variable.aliases) if environ.get(n, "").strip()), None)
        if name is None:
            continue
        text = environ[name].strip()
        try:
            values[f.name] = variable.parse(text)
        except ValueError as error:
            shown = "(hidden)" if variable.secret else _shown(text)
            problems.append(f"{name}={shown}: {error}")
    if problems:
        raise ConfigError("the environment has settings that cannot be used", problems=tuple(problems))
    return settings_class(**values)


def _shown(text: str) -> str:
    said = hide_secrets(text)
    return repr(said if len(said) <= _SHOWN_MAX else f"{said[:_SHOWN_MAX]}…")


def _data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME", "").strip()
    return (Path(base) if base else Path.home() / ".local" / "share") / "emp"


def _folder(value: str) -> Path:
    return Path(value).expanduser()


def _spot_url(value: str) -> str:
    if value.lower() not in ("aws", "azure", "gcp") and not value.startswith(("http://", "https://")):
        raise ValueError("expected aws, azure, gcp, or an http:// or https:// address")
    return value


@frozen
class Settings:
    """What the core reads from the environment. Durations are in seconds, sizes in bytes."""

    workers: tuple[str, ...] = setting(
        "WORKERS", default=(), parse=words, help="Worker types to run, with an optional count: `one:2,another`."
    )
    worker_id: str | None = setting(
        "WORKER_ID", default=None, parse=text, help="Name of the worker; made from the worker type when not set."
    )
    machine_id: str = setting(
        "MACHINE_ID", default=platform.node, parse=text, help="Name of the machine; the host name when not set."
    )
    redis_url: str | None = setting(
        "HUB_REDIS_URL",
        default=None,
        parse=text,
        secret=True,
        help="Where Redis is: `redis://`, `rediss://`, `unix://`, `redis+sentinel://`, `redis+cluster://`. Not set: an embedded "
        "one is started where a command can own it.",
    )
    num_gpus: int | None = setting(
        "NUM_GPUS", default=None, parse=whole(0, 1000), help="GPUs of the machine; found by the driver when not set."
    )
    gpu_id: int | None = setting(
        "GPU_ID", default=None, parse=whole(0, 1000), help="Index of the GPU that this worker has."
    )
    namespace: str = setting(
        "EMP_NAMESPACE",
        default="",
        parse=text,
        help="Put before every key and channel, so that hubs can share a Redis.",
    )
    service_mapping: Path | None = setting(
        "EMP_SERVICE_MAPPING", default=None, parse=_folder, help="Path of a service-mapping.json."
    )
    data_dir: Path = setting(
        "EMP_DATA_DIR", default=_data_dir, parse=_folder, help="Folder for the embedded Redis and local artifacts."
    )
    store: str | None = setting(
        "EMP_STORE",
        default=None,
        parse=text,
        secret=True,
        help="URL of the artifact store (`file://`, `azure://`, `s3://`), or the name of one of `EMP_STORES`; a folder in the "
        "data folder when not set.",
    )
    store_cdn: str | None = setting(
        "EMP_STORE_CDN",
        default=None,
        parse=text,
        help="Public address of the artifact store's root, where the store's own is not the one to hand out.",
    )
    stores: Mapping[str, Any] = setting(
        "EMP_STORES",
        default=dict,
        parse=json_object,
        secret=True,
        help="Further artifact stores by name, as a JSON object of URLs, or of objects with `url`, `cdn` and `env`.",
    )
    retention: Mapping[str, float] = setting(
        "EMP_RETENTION",
        default=dict,
        parse=ages,
        help="Ages at which `emp artifacts prune` deletes artifacts, by retention class: `draft=7d,final=365d`. The class "
        "`default` is that of artifacts without one.",
    )
    private_hosts: tuple[str, ...] = setting(
        "EMP_PRIVATE_HOSTS",
        default=(),
        parse=words,
        help="What URLs in jobs may reach though it is private: `10.0.0.0/8,minio.internal:9000`; `*`: everything.",
    )
    input_folders: tuple[str, ...] = setting(
        "EMP_INPUT_FOLDERS",
        default=(),
        parse=words,
        help="Folders of the worker's machine that jobs may take files from.",
    )
    input_max_bytes: int = setting(
        "EMP_INPUT_MAX_BYTES",
        default=4 * 2**30,
        parse=whole(1, 2**50),
        help="What all files that one job takes may have together.",
    )
    input_timeout_s: float = setting(
        "EMP_INPUT_TIMEOUT_S",
        default=900.0,
        parse=number(1, _CENTURY_S),
        help="How long fetching one file from a URL may take.",
    )
    concurrency: tuple[str, ...] = setting(
        "EMP_CONCURRENCY",
        default=(),
        parse=words,
        help="Jobs at once, for every service (`4`) or by service (`one=1,another=4`); the connector's own default when not set.",
    )
    capabilities: Mapping[str, Any] = setting(
        "EMP_CAPABILITIES",
        default=dict,
        parse=json_object,
        help='Custom capabilities, as a JSON object: `{"fast": true}`.',
    )
    customers_allow: tuple[str, ...] = setting(
        "EMP_CUSTOMERS_ALLOW",
        default=(),
        parse=words,
        help="The only customers whose jobs this worker takes; empty: all.",
    )
    customers_deny: tuple[str, ...] = setting(
        "EMP_CUSTOMERS_DENY", default=(), parse=words, help="Customers whose jobs this worker never takes."
    )
    region: str | None = setting("EMP_REGION", default=None, parse=text, help="Region that this worker is in.")
    pool: str | None = setting("EMP_POOL", default=None, parse=text, help="Pool that this worker belongs to.")
    customer_cap: int = setting(
        "EMP_CUSTOMER_CAP",
        default=0,
        parse=whole(0, _MANY),
        help="Jobs that one customer may have running at once; 0: no cap.",
    )
    lease_s: float = setting(
        "EMP_LEASE_S",
        default=15.0,
        parse=number(0.5, 3600),
        help="How long a silent worker keeps its jobs. The worker renews three times as often.",
    )
    poll_s: float = setting(
        "EMP_POLL_S",
        default=5.0,
        parse=number(0.1, 60),
        help="How often an idle worker looks by itself, should a wake-up be lost.",
    )
    grace_s: float = setting(
        "EMP_GRACE_S",
        default=30.0,
        parse=number(0, 86400),
        help="How long a worker that shuts down lets its jobs go on.",
    )
    spot_file: Path | None = setting(
        "EMP_SPOT_FILE",
        default=None,
        parse=_folder,
        help="File that is made when this machine is about to go; workers drain then.",
    )
    spot_url: str | None = setting(
        "EMP_SPOT_URL",
        default=None,
        parse=_spot_url,
        help="Metadata server that tells when this machine is about to go; workers drain then. `aws`, `azure`, `gcp`, or an "
        "address that answers 200 with a text then, and 404 until then.",
    )
    spot_poll_s: float = setting(
        "EMP_SPOT_POLL_S", default=5.0, parse=number(0.1, 600), help="How often these are looked at."
    )
    priority_step_s: float = setting(
        "EMP_PRIORITY_STEP", default=60.0, parse=number(0, 86400), help="Head start that one point of priority gives."
    )
    max_attempts: int = setting(
        "EMP_MAX_ATTEMPTS", default=3, parse=whole(1, 1000), help="Attempts of a job that does not say its own number."
    )
    max_crashes: int = setting(
        "EMP_MAX_CRASHES", default=2, parse=whole(1, 1000), help="Lost workers after which a job fails as poison."
    )
    retry_base_s: float = setting(
        "EMP_RETRY_BASE_S",
        default=2.0,
        parse=number(0, 3600),
        help="First delay before a retry; doubles with every attempt.",
    )
    retry_max_s: float = setting(
        "EMP_RETRY_MAX_S", default=300.0, parse=number(0, 86400), help="Longest delay before a retry."
    )
    max_payload_bytes: int = setting(
        "EMP_MAX_PAYLOAD_BYTES", default=4 * 2**20, parse=whole(1, _TEXT_MAX), help="Largest payload that submit takes."
    )
    max_result_bytes: int = setting(
        "EMP_MAX_RESULT_BYTES",
        default=256 * 2**10,
        parse=whole(1024, _TEXT_MAX),
        help="Largest result, and largest usage, kept in Redis; larger ones go to the artifact store.",
    )
    max_pending: int = setting(
        "EMP_MAX_PENDING", default=0, parse=whole(0, _MANY), help="Waiting jobs at which submit refuses; 0: no limit."
    )
    max_lanes: int = setting(
        "EMP_MAX_LANES", default=10_000, parse=whole(1, _MANY), help="Different requirements that may wait at once."
    )
    keep_completed_s: float = setting(
        "EMP_KEEP_COMPLETED_S", default=86_400.0, parse=number(1, _CENTURY_S), help="How long a completed job is kept."
    )
    keep_failed_s: float = setting(
        "EMP_KEEP_FAILED_S", default=604_800.0, parse=number(1, _CENTURY_S), help="How long a failed job is kept."
    )
    keep_cancelled_s: float = setting(
        "EMP_KEEP_CANCELLED_S", default=86_400.0, parse=number(1, _CENTURY_S), help="How long a cancelled job is kept."
    )
    keep_idempotency_s: float = setting(
        "EMP_KEEP_IDEMPOTENCY_S",
        default=86_400.0,
        parse=number(1, _CENTURY_S),
        help="How long an idempotency key is remembered.",
    )
    events_max: int = setting(
        "EMP_EVENTS_MAX",
        default=20_000,
        parse=whole(1000, _MANY),
        help="Entries that the stream of all events keeps, of up to 16 events each.",
    )
    wait_replicas: int = setting(
        "EMP_WAIT_REPLICAS",
        default=0,
        parse=whole(0, 100),
        help="Replicas of Redis that must have a submitted job, and a job's outcome, before it counts; 0: none.",
    )
    redis_wait_s: float = setting(
        "EMP_REDIS_WAIT_S",
        default=60.0,
        parse=number(0, _CENTURY_S),
        help="How long a command waits for Redis when it starts.",
    )
    log_level: str = setting(
        "EMP_LOG_LEVEL",
        default="info",
        parse=one_of("debug", "info", "warning", "error"),
        help="Least level of what is logged.",
    )
    log_format: str = setting(
        "EMP_LOG_FORMAT",
        default="auto",
        parse=one_of("auto", "console", "json"),
        help="How logs look; `auto`: console on a terminal, JSON lines otherwise.",
    )

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> "Settings":
        """Read the settings.

        Raises:
            ConfigError: values do not parse; lists all of them.
        """
        return load_settings(cls, environment() if environ is None else environ)

    @property
    def store_url(self) -> str:
        """The artifact store's URL, with the default filled in."""
        return self.store or (self.data_dir.absolute() / "artifacts").as_uri()

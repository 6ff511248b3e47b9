"""What the machine layer reads from the environment."""

from pathlib import Path

from attrs import frozen

from emp_core.config import Settings, one_of, setting, text, whole

__all__ = ["MachineSettings", "root_of"]


def _folder(value: str) -> Path:
    return Path(value).expanduser()


@frozen
class MachineSettings:
    """How a machine is planned and held. Durations are in seconds."""

    root: Path | None = setting(
        "EMP_MACHINE_ROOT",
        default=None,
        parse=_folder,
        help="Folder of everything that the machine layer installs, writes and logs; `machine` in the data folder when not "
        "set.",
    )
    host: str = setting(
        "EMP_MACHINE_HOST",
        default="127.0.0.1",
        parse=text,
        help="Address that services of this machine listen on. Another than `127.0.0.1` shows them to others.",
    )
    gpu_mode: str = setting(
        "GPU_MODE",
        default="auto",
        parse=one_of("auto", "mock"),
        help="`mock`: pretend as many GPUs as `NUM_GPUS` says, one when it is not set, and ask no driver.",
    )
    process_manager: str = setting(
        "EMP_PROCESS_MANAGER",
        default="auto",
        parse=one_of("auto", "pm2", "supervisor"),
        help="What keeps the processes of a machine; `auto`: what kept them last, else PM2 where it is installed, else supervisor.",
    )
    redis_port: int = setting(
        "EMP_MACHINE_REDIS_PORT",
        default=6379,
        parse=whole(1, 65_535),
        help="Port of the machine's own Redis, which it gets where `HUB_REDIS_URL` is not set; the next free one when it is "
        "taken.",
    )


def root_of(settings: Settings, machine: MachineSettings) -> Path:
    """The folder of everything that the machine layer installs, writes and logs."""
    return (machine.root or settings.data_dir / "machine").absolute()

"""What the plugin reads from the environment about several servers."""

from attrs import frozen

from emp_core.config import number, setting, text, whole
from emp_core.endpoints.balancers import DEFAULT_BALANCER

__all__ = ["ClusterSettings"]


@frozen
class ClusterSettings:
    """Which ComfyUI servers there are, and how jobs are spread over them. Durations are in seconds."""

    servers: str | None = setting(
        "NUKE_COMFYUI_SERVERS", default=None, parse=text, help="The ComfyUI servers of a cluster: a JSON array."
    )
    ip: str | None = setting(
        "NUKE_COMFYUI_IP", default=None, parse=text, help="IP address or host of the only server of a cluster."
    )
    port: int = setting("NUKE_COMFYUI_PORT", default=8188, parse=whole(1, 65535), help="Its port.")
    dir_local: str = setting(
        "NUKE_COMFYUI_DIR_LOCAL", default="", parse=text, help="Its ComfyUI folder, as this machine sees it: `U:/`."
    )
    dir_remote: str = setting(
        "NUKE_COMFYUI_DIR_REMOTE", default="", parse=text, help="The same folder, as the server sees it."
    )
    servers_file: str | None = setting(
        "EMP_COMFYUI_SERVERS_FILE",
        default=None,
        parse=text,
        help="File that `emp comfyui servers` writes changes to; default: `comfyui-servers.json` in `EMP_DATA_DIR`.",
    )
    balancer: str = setting(
        "EMP_COMFYUI_BALANCER",
        default=DEFAULT_BALANCER,
        parse=text,
        help="How servers are chosen: `least_loaded`, `round_robin`, `priority`, `fastest`, or a plugin's strategy.",
    )
    failovers: int = setting(
        "EMP_COMFYUI_FAILOVERS",
        default=1,
        parse=whole(0, 100),
        help="How often a job whose server went away in mid-run is begun again on another server, in all its attempts.",
    )
    jobs_per_server: int = setting(
        "EMP_COMFYUI_JOBS_PER_SERVER",
        default=1,
        parse=whole(1, 1000),
        help="Jobs that a worker sends to each server of a cluster at once.",
    )
    check_s: float = setting(
        "EMP_COMFYUI_CHECK_S",
        default=5.0,
        parse=number(0.05, 3600),
        help="How often each server of a cluster is asked how it is.",
    )
    check_timeout_s: float = setting(
        "EMP_COMFYUI_CHECK_TIMEOUT_S",
        default=10.0,
        parse=number(0.05, 600),
        help="How long it may take to answer that before it counts as offline.",
    )

"""What the plugin reads from the environment."""

from attrs import frozen

from emp_core.config import flag, number, setting, text, whole

__all__ = ["ComfyUISettings"]


@frozen
class ComfyUISettings:
    """Where ComfyUI is, and how long to wait for what. Durations are in seconds, sizes in bytes."""

    host: str = setting(
        "COMFYUI_HOST", default="127.0.0.1", parse=text, help="Host of the ComfyUI server, or its IP address."
    )
    port: int = setting(
        "COMFYUI_PORT",
        default=8188,
        parse=whole(1, 65535),
        help="Port of the ComfyUI server.",
        aliases=("COMFYUI_BASE_PORT",),
    )
    tls: bool = setting(
        "EMP_COMFYUI_TLS", default=False, parse=flag, help="Whether the server is spoken to over https and wss."
    )
    base_path: str = setting(
        "EMP_COMFYUI_BASE_PATH", default="", parse=text, help="Path in front of all routes, behind a proxy: `/comfy`."
    )
    poll_s: float = setting(
        "EMP_COMFYUI_POLL_S",
        default=2.0,
        parse=number(0.01, 60),
        help="How often a prompt is asked after while its web socket is silent.",
    )
    gone_s: float = setting(
        "EMP_COMFYUI_GONE_S",
        default=10.0,
        parse=number(0, 3600),
        help="How long a server may take no connections in mid-job before it counts as gone.",
    )
    stall_s: float = setting(
        "EMP_COMFYUI_STALL_S",
        default=120.0,
        parse=number(0, 3600),
        help="How long a server may take connections but answer nothing in mid-job before it counts as gone.",
    )
    cancel_s: float = setting(
        "EMP_COMFYUI_CANCEL_S",
        default=15.0,
        parse=number(0, 3600),
        help="How long a cancelled prompt is pursued: ComfyUI stops at a node's next step.",
    )
    max_output_bytes: int = setting(
        "EMP_COMFYUI_MAX_OUTPUT_BYTES", default=4 * 2**30, parse=whole(1), help="Largest output file that is fetched."
    )
    temp_outputs: bool = setting(
        "EMP_COMFYUI_TEMP_OUTPUTS",
        default=False,
        parse=flag,
        help="Whether previews and other temporary outputs are kept, too; a job's `temp_outputs` goes first.",
    )

    @property
    def base_url(self) -> str:
        """The server's address."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        path = self.base_path.strip("/")
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}" + (f"/{path}" if path else "")

"""What the plugin reads from the environment."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
from attrs import frozen

from emp_comfyui.access import Access, header_object
from emp_core.config import Variable, flag, load_settings, number, setting, text, variables_of, whole

__all__ = ["ComfyUIRemoteSettings", "ComfyUISettings", "remote_as_local"]


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
    token: str | None = setting(
        "EMP_COMFYUI_TOKEN",
        default=None,
        parse=text,
        secret=True,
        help="Token that is sent as `Authorization: Bearer`.",
    )
    user: str | None = setting(
        "EMP_COMFYUI_USER", default=None, parse=text, help="Name for HTTP basic authentication, with the password."
    )
    password: str | None = setting(
        "EMP_COMFYUI_PASSWORD", default=None, parse=text, secret=True, help="Password for HTTP basic authentication."
    )
    headers: Mapping[str, str] = setting(
        "EMP_COMFYUI_HEADERS",
        default=dict,
        parse=header_object,
        secret=True,
        help="More headers for every request, as a JSON object.",
    )
    ca_file: str | None = setting(
        "EMP_COMFYUI_CA_FILE",
        default=None,
        parse=text,
        help="Certificates of authorities that are believed besides the well-known ones, as a PEM file.",
    )
    cert_file: str | None = setting(
        "EMP_COMFYUI_CERT_FILE", default=None, parse=text, help="Certificate that the server is shown, as a PEM file."
    )
    key_file: str | None = setting(
        "EMP_COMFYUI_KEY_FILE", default=None, parse=text, help="Its key, where the PEM file does not hold it."
    )
    verify: bool = setting(
        "EMP_COMFYUI_VERIFY", default=True, parse=flag, help="Whether the server's certificate is checked."
    )
    output_dir: str | None = setting(
        "EMP_COMFYUI_OUTPUT_DIR",
        default=None,
        parse=text,
        help="The server's output folder as this machine sees it; where not set, what a server on this machine says.",
    )
    temp_dir: str | None = setting(
        "EMP_COMFYUI_TEMP_DIR",
        default=None,
        parse=text,
        help="The server's folder for temporary files as this machine sees it; where not set, as above.",
    )
    input_dir: str | None = setting(
        "EMP_COMFYUI_INPUT_DIR",
        default=None,
        parse=text,
        help="The server's input folder as this machine sees it; where not set, as above.",
    )
    keep_uploads: bool = setting(
        "EMP_COMFYUI_KEEP_UPLOADS",
        default=False,
        parse=flag,
        help="Whether uploaded files stay on the server even where its input folder is at hand.",
    )
    keep_outputs: bool = setting(
        "EMP_COMFYUI_KEEP_OUTPUTS",
        default=False,
        parse=flag,
        help="Whether output files stay on the server even where its output folder is at hand and the job names a store.",
    )
    keep_history: bool = setting(
        "EMP_COMFYUI_KEEP_HISTORY",
        default=False,
        parse=flag,
        help="Whether ended prompts stay in the server's history; else they are removed after ten minutes.",
    )
    read_files: bool = setting(
        "EMP_COMFYUI_READ_FILES",
        default=True,
        parse=flag,
        help="Whether outputs are read from the file system where the server's folders are at hand.",
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
    def access(self) -> Access:
        """How the server is reached."""
        return Access(**{field.name: getattr(self, field.name) for field in attrs.fields(Access)})

    @property
    def folders(self) -> Mapping[str, Path]:
        """The server's folders as the operator names them, by kind."""
        named = {"output": self.output_dir, "temp": self.temp_dir, "input": self.input_dir}
        return {kind: Path(path).expanduser() for kind, path in named.items() if path is not None}

    @property
    def base_url(self) -> str:
        """The server's address."""
        return self.access.base_url


def _variables() -> Mapping[str, Variable]:
    """The variables that say where a server is and how it is reached, by field."""
    named = [field.name for field in attrs.fields(ComfyUISettings)]
    fields = {field.name for field in attrs.fields(Access)} | {"output_dir", "temp_dir", "input_dir"}
    return {name: one for name, one in zip(named, variables_of(ComfyUISettings), strict=True) if name in fields}


def _remote_name(variable: Variable) -> str:
    return variable.name.replace("COMFYUI_", "COMFYUI_REMOTE_", 1)


def _remote_setting(variable: Variable) -> Any:
    about = variable.help[0].lower() + variable.help[1:]
    default = None if variable.name == "COMFYUI_HOST" else variable.default
    return setting(
        _remote_name(variable),
        default=default,
        parse=variable.parse,
        secret=variable.secret,
        help=f"For `comfyui-remote`: {about}",
    )


ComfyUIRemoteSettings: type = attrs.make_class(
    "ComfyUIRemoteSettings", {name: _remote_setting(one) for name, one in _variables().items()}, frozen=True
)
"""Where the server of the worker type ``comfyui-remote`` is: the same as for ``comfyui``, with ``REMOTE_`` in the names."""


def remote_as_local(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment of a connector that speaks to the remote server: what is said of it, in place of the local one.

    Raises:
        ConfigError: values cannot be read, under the names that the user gave them.
    """
    load_settings(ComfyUIRemoteSettings, environ)
    local = {name for one in _variables().values() for name in (one.name, *one.aliases)}
    kept = {name: value for name, value in environ.items() if name not in local}
    told = {one.name: environ[_remote_name(one)] for one in _variables().values() if _remote_name(one) in environ}
    return {**kept, **told}

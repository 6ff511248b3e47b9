"""`ComfyUIServer`: one server of a cluster."""

from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from emp_comfyui.cluster.paths import PathMap
from emp_core.endpoints.endpoint import Endpoint
from emp_core.errors import ConfigError

__all__ = ["ComfyUIServer"]


@frozen
class ComfyUIServer:
    """One server of a cluster, as ``NUKE_COMFYUI_SERVERS`` describes it.

    Attributes:
        name: what people call it; unique.
        ip: its IP address or host name.
        dir_local: ComfyUI's folder as this machine sees it (``U:/``); empty: it does not.
        dir_remote: the same folder as the server sees it (``/home/me/ComfyUI/``); empty: as this machine does.
        priority: 1 is preferred, then 2, and so on.
        enabled: whether it gets workflows.
        tls: whether it is spoken to over https and wss.
        base_path: a path in front of all routes, behind a proxy.
        slots: prompts that it runs at once; ComfyUI itself runs one after the other.
    """

    name: str
    ip: str
    port: int = 8188
    dir_local: str = ""
    dir_remote: str = ""
    priority: int = 1
    enabled: bool = True
    tls: bool = field(default=False, kw_only=True)
    base_path: str = field(default="", kw_only=True)
    slots: int = field(default=1, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise ConfigError(f"server {self.name}: the port {self.port} is none", hint="ports go from 1 to 65535")
        self.endpoint()  # checks the rest

    @property
    def url(self) -> str:
        """Its address."""
        host = f"[{self.ip}]" if ":" in self.ip and not self.ip.startswith("[") else self.ip
        path = self.base_path.strip("/")
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}" + (f"/{path}" if path else "")

    @property
    def paths(self) -> PathMap:
        """How paths here are called there."""
        return PathMap(self.dir_local, self.dir_remote)

    def endpoint(self) -> Endpoint:
        """As the pool knows it."""
        return Endpoint(self.name, self.url, priority=self.priority, enabled=self.enabled, slots=self.slots)

    def environ(self) -> Mapping[str, str]:
        """What makes a connector speak to it."""
        environ = {
            "COMFYUI_HOST": self.ip,
            "COMFYUI_PORT": str(self.port),
            "EMP_COMFYUI_TLS": str(self.tls).lower(),
            "EMP_COMFYUI_BASE_PATH": self.base_path,
        }
        if self.dir_local:
            local = self.dir_local.rstrip("/\\")
            environ |= {f"EMP_COMFYUI_{kind.upper()}_DIR": f"{local}/{kind}" for kind in ("output", "temp", "input")}
        return environ

    def as_dict(self) -> dict[str, Any]:
        """As an entry of ``NUKE_COMFYUI_SERVERS``; what is as by default is left out."""
        shown = {
            "name": self.name,
            "ip": self.ip,
            "port": self.port,
            "priority": self.priority,
            "enabled": self.enabled,
        }
        more = {
            "dir_local": self.dir_local,
            "dir_remote": self.dir_remote,
            "tls": self.tls,
            "base_path": self.base_path,
            "slots": None if self.slots == 1 else self.slots,
        }
        return {**shown, **{key: value for key, value in more.items() if value}}

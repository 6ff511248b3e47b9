"""Routes that tell about the server: its nodes, models, features and state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

if TYPE_CHECKING:
    from emp_comfyui.testing.server import FakeComfyUI

_MODEL_FOLDERS = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
]
_MEMORY = 25_276_510_208


class InfoRoutes:
    """Handlers of ``/object_info``, ``/system_stats``, ``/features``, ``/models`` and other things to read."""

    def __init__(self, server: FakeComfyUI) -> None:
        """For one server."""
        self._server = server

    def routes(self) -> list[web.RouteDef]:
        """All routes, without ``/api``."""
        routes = [
            web.get("/object_info", self.object_info),
            web.get("/object_info/{name}", self.object_info_of),
            web.get("/system_stats", self.system_stats),
            web.get("/models", self.models),
            web.get("/models/{folder}", self.models_in),
            web.get("/embeddings", self.embeddings),
            web.get("/experiment/models", self.model_folders),
            web.get("/view_metadata/{folder}", self.nothing_there),
            web.get("/users", self.users),
            web.get("/settings", self.empty_object),
            web.get("/workflow_templates", self.empty_object),
            web.get("/i18n", self.empty_object),
            web.get("/userdata", self.userdata),
        ]
        if self._server.replaced_nodes:
            routes.append(web.get("/node_replacements", self.node_replacements))
        if self._server.capabilities.feature_flags:
            routes.append(web.get("/features", self.features))
        return routes

    async def object_info(self, request: web.Request) -> web.Response:
        """All node classes."""
        del request
        return web.json_response({each.name: each.object_info(self._server) for each in self._server.nodes})

    async def object_info_of(self, request: web.Request) -> web.Response:
        """One node class, or ``{}``."""
        found = self._server.nodes.get(request.match_info["name"])
        return web.json_response({} if found is None else {found.name: found.object_info(self._server)})

    async def system_stats(self, request: web.Request) -> web.Response:
        """Version, memory and devices."""
        del request
        system = {
            "os": "posix",
            "ram_total": _MEMORY,
            "ram_free": _MEMORY - 2**30,
            "comfyui_version": self._server.version,
            "required_frontend_version": "1.27.10",
            "installed_templates_version": "0.1.95",
            "required_templates_version": "0.1.95",
            "python_version": "3.11.7 (main) [GCC 12.2.0]",
            "pytorch_version": "2.13.0+cpu",
            "embedded_python": False,
            "argv": ["main.py", "--listen", self._server.host, "--port", str(self._server.port), *self._folders()],
        }
        return web.json_response({"system": system, "devices": [dict(each) for each in self._server.devices]})

    def _folders(self) -> list[str]:
        if not self._server.tells_folders:
            return []
        output, temp, inputs = (str(self._server.folders.path(kind)) for kind in ("output", "temp", "input"))
        return [
            *("--output-directory", output),
            *("--temp-directory", temp.removesuffix("/temp")),
            *("--input-directory", inputs),
        ]

    async def features(self, request: web.Request) -> web.Response:
        """The server's feature flags."""
        del request
        return web.json_response(self._server.hub.own_flags())

    async def models(self, request: web.Request) -> web.Response:
        """The model folders."""
        del request
        more = [name for name in self._server.models if name not in _MODEL_FOLDERS]
        return web.json_response([*_MODEL_FOLDERS, *more])

    async def models_in(self, request: web.Request) -> web.Response:
        """The model files of a folder."""
        folder = request.match_info["folder"]
        if folder not in _MODEL_FOLDERS and folder not in self._server.models:
            return web.Response(status=404)
        return web.json_response(list(self._server.models.get(folder, ())))

    async def embeddings(self, request: web.Request) -> web.Response:
        """Names of embeddings, without their extension."""
        del request
        return web.json_response([name.rsplit(".", 1)[0] for name in self._server.models.get("embeddings", ())])

    async def model_folders(self, request: web.Request) -> web.Response:
        """The model folders with paths."""
        del request
        hidden = ("configs", "custom_nodes")
        described = [
            {"name": name, "folders": [f"ComfyUI/models/{name}"]} for name in _MODEL_FOLDERS if name not in hidden
        ]
        return web.json_response(described)

    async def node_replacements(self, request: web.Request) -> web.Response:
        """The classes that are replaced, each with what comes in its place."""
        del request
        told = self._server.replaced_nodes.items()
        return web.json_response({old: [{"old_node_id": old, "new_node_id": new}] for old, new in told})

    async def nothing_there(self, request: web.Request) -> web.Response:
        """404 with an empty body."""
        del request
        return web.Response(status=404)

    async def users(self, request: web.Request) -> web.Response:
        """A server with a single user."""
        del request
        return web.json_response({"storage": "server", "migrated": False})

    async def empty_object(self, request: web.Request) -> web.Response:
        """``{}``."""
        del request
        return web.json_response({})

    async def userdata(self, request: web.Request) -> web.Response:
        """No user data anywhere."""
        if "dir" not in request.query:
            return web.Response(status=400, text="Directory not provided")
        return web.Response(status=404, text="Directory not found")


def cpu_device() -> dict[str, Any]:
    """The device that a server without a GPU reports."""
    return {
        "name": "cpu",
        "type": "cpu",
        "index": None,
        "vram_total": _MEMORY,
        "vram_free": _MEMORY - 2**30,
        "torch_vram_total": _MEMORY,
        "torch_vram_free": _MEMORY - 2**30,
    }

"""A plain client for the fake server: it submits graphs and keeps what it is told."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

Graph = dict[str, Any]


class Watcher:
    """A client that submits a graph and keeps what it is told."""

    def __init__(self, session: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.session = session
        self.socket = socket
        self.frames: list[Any] = []

    async def submit(self, graph: dict[str, Any], **more: Any) -> dict[str, Any]:
        body = {"prompt": graph, "client_id": "me", **more}
        async with self.session.post("/prompt", json=body) as response:
            return {"status": response.status, **(await response.json())}

    async def until(self, kind: str) -> dict[str, Any]:
        """Read frames until one of that type (``end``: executing null)."""
        while True:
            message = await self.socket.receive(timeout=5)
            if message.type is aiohttp.WSMsgType.BINARY:
                self.frames.append(message.data)
                continue
            assert message.type is aiohttp.WSMsgType.TEXT, message
            frame = json.loads(message.data)
            self.frames.append(frame)
            is_end = frame["type"] == "executing" and frame["data"]["node"] is None
            if frame["type"] == kind or (kind == "end" and is_end):
                return dict(frame)

    async def json(self, path: str) -> Any:
        async with self.session.get(path) as response:
            return await response.json()

    async def post(self, path: str, body: Any = None) -> int:
        async with self.session.post(path, json=body) as response:
            return response.status

    async def bytes(self, path: str, **params: str) -> bytes:
        async with self.session.get(path, params=params) as response:
            assert response.status == 200, response.status
            return await response.read()

    async def status(self, path: str, **params: str) -> int:
        async with self.session.get(path, params=params) as response:
            return response.status

    async def run(self, graph: Graph, **more: Any) -> dict[str, Any]:
        """Submit and wait for the end; returns the history entry."""
        answer = await self.submit(graph, **more)
        assert answer["status"] == 200, answer
        await self.until("end")
        entry: dict[str, Any] = (await self.json(f"/history/{answer['prompt_id']}"))[answer["prompt_id"]]
        return entry


@contextlib.asynccontextmanager
async def watching(url: str, client_id: str = "me") -> AsyncIterator[Watcher]:
    async with aiohttp.ClientSession(url) as session, session.ws_connect(f"/ws?clientId={client_id}") as socket:
        yield Watcher(session, socket)


def types(frames: list[Any]) -> list[str]:
    return [frame["type"] if isinstance(frame, dict) else "binary" for frame in frames]


def text_to_image(seed: int = 7, *, width: int = 64, height: int = 48, steps: int = 2, batch: int = 1) -> Graph:
    """The stock workflow."""
    sampler = {
        "seed": seed,
        "steps": steps,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
        "model": ["4", 0],
        "positive": ["6", 0],
        "negative": ["7", 0],
        "latent_image": ["5", 0],
    }
    return {
        "3": {"class_type": "KSampler", "inputs": sampler},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd_xl_base_1.0.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"width": width, "height": height, "batch_size": batch}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse at dusk", "clip": ["4", 1]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "text, watermark", "clip": ["4", 1]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "ComfyUI"}},
    }


def one_image(color: int = 255, prefix: str = "one") -> Graph:
    inputs = {"width": 16, "height": 16, "batch_size": 1, "color": color}
    return {
        "1": {"class_type": "EmptyImage", "inputs": inputs},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def slow_image(steps: int = 4, *, preview: str = "none", seed: int = 1) -> Graph:
    slow = {"steps": steps, "seconds_per_step": 0.1, "report_progress": True, "preview": preview, "fail_at_step": 0}
    return {
        "1": {"class_type": "ProbeSlow", "inputs": {**slow, "seed": seed}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "slow"}},
    }

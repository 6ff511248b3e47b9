"""The demo: text to image on the fake ComfyUI server, which paints a picture in place of a model."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from emp_core.plugins.hookspecs import Demo

__all__ = ["demo"]

_STEPS = 20
_STEP_S = 0.1


def demo() -> Demo:
    """The stock text-to-image workflow."""
    return Demo(
        name="comfyui",
        description="text to image on a pretended ComfyUI server: its protocol is the real one's, its picture is painted",
        worker_type="comfyui",
        service_required="comfyui",
        payload=_workflow(),
        start=_pretended_server,
        missing=_missing(),
    )


def _missing() -> str | None:
    if find_spec("aiohttp") is None:
        return "its pretended server needs more packages: pip install 'emp-comfyui[testing]'"
    return None


@asynccontextmanager
async def _pretended_server() -> AsyncIterator[Mapping[str, str]]:
    from emp_comfyui.testing import FakeComfyUI  # late: its packages are not needed by anything else

    async with FakeComfyUI(step_delay=_STEP_S) as server:
        yield {"COMFYUI_HOST": server.host, "COMFYUI_PORT": str(server.port)}


def _workflow() -> dict[str, Any]:
    return {
        "3": _node(
            "KSampler",
            seed=20_000_618,
            steps=_STEPS,
            cfg=7.0,
            sampler_name="euler",
            scheduler="normal",
            denoise=1.0,
            model=["4", 0],
            positive=["6", 0],
            negative=["7", 0],
            latent_image=["5", 0],
        ),
        "4": _node("CheckpointLoaderSimple", ckpt_name="v1-5-pruned-emaonly.safetensors"),
        "5": _node("EmptyLatentImage", width=512, height=512, batch_size=1),
        "6": _node("CLIPTextEncode", text="a lighthouse at dusk, long exposure", clip=["4", 1]),
        "7": _node("CLIPTextEncode", text="text, watermark", clip=["4", 1]),
        "8": _node("VAEDecode", samples=["3", 0], vae=["4", 2]),
        "9": _node("SaveImage", filename_prefix="emp-demo", images=["8", 0]),
    }


def _node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}

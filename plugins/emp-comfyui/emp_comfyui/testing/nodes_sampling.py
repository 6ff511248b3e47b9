"""Stock nodes of a text-to-image workflow: loaders, text encoder, sampler, decoder. Nothing is computed; pictures are painted."""

import json
from collections.abc import Callable
from typing import Any

import attrs

from emp_comfyui.testing import jpeg, pictures
from emp_comfyui.testing.node_class import Batch, Input, NodeCall, NodeClass, Site
from emp_comfyui.testing.pictures import Picture

SAMPLERS = [
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
SCHEDULERS = [
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
]
PREVIEW_SIDE = 256


@attrs.frozen
class Latent:
    """The value of a LATENT: what will be painted, not numbers."""

    width: int
    height: int
    count: int
    recipe: str = ""
    source: Batch = attrs.field(default=(), repr=False)
    denoise: float = 1.0

    def painted(self, number: int) -> Picture:
        """The picture that decoding gives."""
        if not self.recipe:
            return (
                self.source[number % len(self.source)] if self.source else pictures.solid(*self.size, (128, 128, 128))
            )
        picture = pictures.plasma(self.width, self.height, f"{self.recipe}#{number}")
        if not self.source:
            return picture
        return pictures.blended(self.source[number % len(self.source)], picture, self.denoise)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height


async def _load_checkpoint(call: NodeCall) -> tuple[str, str, str]:
    name = str(call["ckpt_name"])
    return name, name, name


async def _toy_checkpoint(call: NodeCall) -> tuple[str, str, str]:
    name = f"toy {call['seed']}"
    return name, name, name


async def _load_lora(call: NodeCall) -> tuple[str, str]:
    lora = f"{call['lora_name']} {call['strength_model']} {call['strength_clip']}"
    return f"{call['model']} + {lora}", f"{call['clip']} + {lora}"


def _loader(input_name: str) -> Callable[[NodeCall], Any]:
    async def load(call: NodeCall) -> tuple[str]:
        return (str(call[input_name]),)

    return load


async def _encode_text(call: NodeCall) -> tuple[str]:
    return (f"{call['clip']}: {call['text']}",)


async def _empty_latent(call: NodeCall) -> tuple[Latent]:
    # The real node rounds down to whole latent pixels of 8 x 8.
    return (Latent(call["width"] // 8 * 8, call["height"] // 8 * 8, call["batch_size"]),)


async def _sample(call: NodeCall) -> tuple[Latent]:
    latent: Latent = call["latent_image"]
    told = ("model", "seed", "steps", "cfg", "sampler_name", "scheduler", "positive", "negative")
    recipe = json.dumps([latent.recipe, *(call[name] for name in told)])
    result = attrs.evolve(latent, recipe=recipe, denoise=float(call["denoise"]))
    steps = int(call["steps"])
    for step in range(1, steps + 1):
        await call.step(step, steps, (_glimpse(result, step / steps), "image/jpeg"))
    return (result,)


def _glimpse(latent: Latent, done: float) -> bytes:
    """What a preview shows: the picture to be, under less and less noise."""
    scale = min(1.0, PREVIEW_SIDE / max(latent.size))
    width, height = max(8, round(latent.width * scale)), max(8, round(latent.height * scale))
    blocks = attrs.evolve(latent, width=max(1, width // 8), height=max(1, height // 8), source=()).painted(0)
    return jpeg.encode(pictures.scaled(pictures.noisy(blocks, round(done * 1000), 0.8 * (1 - done)), width, height))


async def _decode(call: NodeCall) -> tuple[Batch]:
    latent: Latent = call["samples"]
    return (tuple(latent.painted(number) for number in range(latent.count)),)


async def _encode(call: NodeCall) -> tuple[Latent]:
    batch: Batch = call["pixels"]
    return (Latent(batch[0].width, batch[0].height, len(batch), source=batch),)


def _models(folder: str) -> Input:
    def choices(site: Site) -> list[str]:
        return list(site.models.get(folder, ()))

    return Input((), {}, choices)


_STRENGTH = Input("FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0, "step": 0.01})
_SEED = {"default": 0, "min": 0, "max": 2**64 - 1}
_LATENT_SIDE = Input("INT", {"default": 512, "min": 16, "max": 16384, "step": 8})
_CHECKPOINT = ("MODEL", "CLIP", "VAE")

CLASSES = (
    NodeClass(
        "CheckpointLoaderSimple",
        _load_checkpoint,
        inputs={"ckpt_name": _models("checkpoints")},
        outputs=_CHECKPOINT,
        more={"display_name": "Load Checkpoint", "category": "loaders"},
    ),
    NodeClass(
        "LoraLoader",
        _load_lora,
        inputs={
            "model": Input("MODEL", {}),
            "clip": Input("CLIP", {}),
            "lora_name": _models("loras"),
            "strength_model": _STRENGTH,
            "strength_clip": _STRENGTH,
        },
        outputs=("MODEL", "CLIP"),
        more={"display_name": "Load LoRA", "category": "loaders"},
    ),
    NodeClass(
        "VAELoader",
        _loader("vae_name"),
        inputs={"vae_name": _models("vae")},
        outputs=("VAE",),
        more={"display_name": "Load VAE", "category": "loaders"},
    ),
    NodeClass(
        "UNETLoader",
        _loader("unet_name"),
        inputs={
            "unet_name": _models("diffusion_models"),
            "weight_dtype": Input(("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")),
        },
        outputs=("MODEL",),
        more={"display_name": "Load Diffusion Model", "category": "advanced/loaders"},
    ),
    NodeClass(
        "CLIPTextEncode",
        _encode_text,
        inputs={"text": Input("STRING", {"multiline": True, "dynamicPrompts": True}), "clip": Input("CLIP", {})},
        outputs=("CONDITIONING",),
        more={"display_name": "CLIP Text Encode (Prompt)", "category": "conditioning"},
    ),
    NodeClass(
        "EmptyLatentImage",
        _empty_latent,
        inputs={
            "width": _LATENT_SIDE,
            "height": _LATENT_SIDE,
            "batch_size": Input("INT", {"default": 1, "min": 1, "max": 4096}),
        },
        outputs=("LATENT",),
        more={"display_name": "Empty Latent Image", "category": "latent"},
    ),
    NodeClass(
        "KSampler",
        _sample,
        inputs={
            "model": Input("MODEL", {}),
            "seed": Input("INT", {**_SEED, "control_after_generate": True}),
            "steps": Input("INT", {"default": 20, "min": 1, "max": 10000}),
            "cfg": Input("FLOAT", {"default": 8.0, "min": 0.0, "max": 100.0, "step": 0.1, "round": 0.01}),
            "sampler_name": Input(SAMPLERS, {}),
            "scheduler": Input(SCHEDULERS, {}),
            "positive": Input("CONDITIONING", {}),
            "negative": Input("CONDITIONING", {}),
            "latent_image": Input("LATENT", {}),
            "denoise": Input("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01}),
        },
        outputs=("LATENT",),
        more={"display_name": "KSampler", "category": "sampling"},
    ),
    NodeClass(
        "VAEDecode",
        _decode,
        inputs={"samples": Input("LATENT", {}), "vae": Input("VAE", {})},
        outputs=("IMAGE",),
        more={"display_name": "VAE Decode", "category": "latent"},
    ),
    NodeClass(
        "VAEEncode",
        _encode,
        inputs={"pixels": Input("IMAGE"), "vae": Input("VAE")},
        outputs=("LATENT",),
        more={"display_name": "VAE Encode", "category": "latent"},
    ),
    NodeClass(
        "ProbeToyCheckpoint",
        _toy_checkpoint,
        inputs={"seed": Input("INT", _SEED)},
        outputs=_CHECKPOINT,
        more={"python_module": "custom_nodes.comfy_test_nodes", "category": "probe"},
    ),
)

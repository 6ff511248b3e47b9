"""``python -m emp_comfyui.testing``: the fake ComfyUI server as a process of its own."""

import signal
from pathlib import Path
from typing import Literal

import anyio
import click

from emp_comfyui.testing.server import FakeComfyUI, pretended_models
from emp_comfyui.testing.versions import DEFAULT_VERSION, capabilities_of

EXAMPLES = """\b
Examples:
  python -m emp_comfyui.testing
  python -m emp_comfyui.testing --port 0 --step-delay 0.2
  python -m emp_comfyui.testing --version 0.3.12 --output-dir ./pictures
  python -m emp_comfyui.testing --model checkpoints/mine.safetensors --model loras/style.safetensors
"""


@click.command(epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8188, show_default=True, type=click.IntRange(0, 65535), help="Port; 0 takes a free one."
)
@click.option(
    "--output-dir",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for output files, kept after the end; without it they go with the server.",
)
@click.option(
    "--step-delay", default=0.0, show_default=True, type=click.FloatRange(0), help="Seconds per sampler step."
)
@click.option(
    "--version", "version", default=DEFAULT_VERSION, show_default=True, help="ComfyUI version to behave like."
)
@click.option(
    "--dialect",
    default="stock",
    show_default=True,
    type=click.Choice(["stock", "fork"]),
    help="fork: tells sockets their client_id and takes prompts over them.",
)
@click.option(
    "--model", "models", multiple=True, metavar="FOLDER/NAME", help="Pretend to have this model file; repeatable."
)
def main(
    host: str,
    port: int,
    output_dir: Path | None,
    step_delay: float,
    version: str,
    dialect: Literal["stock", "fork"],
    models: tuple[str, ...],
) -> None:
    """A ComfyUI server without GPU and models, for trying things out and for tests.

    It runs the stock text-to-image workflow and others, paints a picture in place of the model, and speaks ComfyUI's
    protocol. When it is ready it prints one line that ends with its address. Ctrl-C or SIGTERM ends it.
    """
    try:
        capabilities_of(version)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--version") from error
    if output_dir is not None:
        output_dir.mkdir(parents=True, exist_ok=True)
    server = FakeComfyUI(
        host=host,
        port=port,
        output_dir=output_dir,
        step_delay=step_delay,
        version=version,
        dialect=dialect,
        models=_models(models),
    )
    try:
        anyio.run(_serve, server)
    except* OSError as errors:
        reason = errors.exceptions[0]
        raise click.ClickException(
            f"cannot listen on {host}:{port}: {reason}. Choose another --port, or 0 for a free one."
        ) from None


def _models(named: tuple[str, ...]) -> dict[str, list[str]]:
    models = pretended_models()
    for each in named:
        folder, _, name = each.partition("/")
        if not name:
            raise click.BadParameter(f"{each!r}: write it like checkpoints/mine.safetensors", param_hint="--model")
        models.setdefault(folder, []).append(name)
    return models


async def _serve(server: FakeComfyUI) -> None:
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with server:
            click.echo(f"Fake ComfyUI {server.version} is ready: {server.url}")
            async for _ in signals:
                return


if __name__ == "__main__":
    main(prog_name="python -m emp_comfyui.testing")

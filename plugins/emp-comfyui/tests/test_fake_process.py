"""``python -m emp_comfyui.testing``: a process that says where it listens, serves, and ends when told to."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner
from emp_comfyui.testing import png
from emp_comfyui.testing.__main__ import main

from .fake_client import text_to_image

COMMAND = [sys.executable, "-m", "emp_comfyui.testing"]


@contextlib.contextmanager
def started(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [*COMMAND, "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            yield process, line.split()[-1]
        finally:
            process.kill()


def run_text_to_image(url: str) -> bytes:
    """Submit the stock workflow and poll for its picture, as a client without a socket does."""
    with httpx.Client(base_url=url) as client:
        prompt_id = client.post("/prompt", json={"prompt": text_to_image()}).json()["prompt_id"]
        while True:
            busy = client.get("/queue").json()
            entry = client.get(f"/history/{prompt_id}").json()
            if entry:
                return client.get("/view", params=entry[prompt_id]["outputs"]["9"]["images"][0]).content
            assert busy["queue_running"] or busy["queue_pending"]


def test_it_says_where_it_listens_and_paints(tmp_path: Path) -> None:
    with started("--output-dir", str(tmp_path / "out"), "--step-delay", "0.01") as (process, url):
        assert png.size(run_text_to_image(url)) == (64, 48)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ComfyUI_00001_.png"]


def test_ctrl_c_ends_it_quietly_in_the_middle_of_a_prompt() -> None:
    with started("--step-delay", "60", "--version", "0.3.12") as (process, url):
        with httpx.Client(base_url=url) as client:
            assert client.get("/system_stats").json()["system"]["comfyui_version"] == "0.3.12"
            assert client.post("/prompt", json={"prompt": text_to_image()}).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_a_killed_process_comes_back_on_its_port_with_its_files(tmp_path: Path) -> None:
    with started("--output-dir", str(tmp_path), "--model", "checkpoints/mine.safetensors") as (process, url):
        run_text_to_image(url)
        process.kill()
        process.wait(timeout=10)
    port = url.rpartition(":")[2]
    with started("--output-dir", str(tmp_path), "--port", port) as (_, again):
        assert again == url
        assert httpx.get(f"{url}/history").json() == {}
        assert httpx.get(f"{url}/view?filename=ComfyUI_00001_.png").status_code == 200


def said(*options: str) -> tuple[int, str]:
    done = CliRunner().invoke(main, options)
    return done.exit_code, done.output


def test_a_taken_port_is_told_with_advice() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, output = said("--port", str(taken.getsockname()[1]))
    assert code == 1
    assert "cannot listen on 127.0.0.1" in output
    assert "Choose another --port" in output


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--version", "new"], "is no ComfyUI version"),
        (["--model", "loose.safetensors"], "checkpoints/mine.safetensors"),
        (["--port", "70000"], "70000"),
    ],
)
def test_wrong_options_are_told(options: list[str], words: str) -> None:
    code, output = said(*options)
    assert code == 2
    assert words in output


def test_the_help_has_examples() -> None:
    code, output = said("--help")
    assert code == 0
    assert "python -m emp_comfyui.testing --port 0 --step-delay 0.2" in output

"""What the documents show works as it stands there."""

import json
from pathlib import Path

import pytest

from emp_core.config import environment
from emp_core.plugins.manager import load_plugins
from emp_core.services.load import read_mapping

from .pages import ALL_PAGES, Block, page, page_names
from .running import Runner

BLOCKS = [block for path in ALL_PAGES for block in page(path).blocks]
RUNNABLE = {"python", "sh", "console", "text"}


def runs(block: Block) -> bool:
    return block.language == "python" or bool(block.marks)


@pytest.mark.parametrize("path", [path for path in ALL_PAGES if any(map(runs, page(path).blocks))], ids=page_names)
def test_what_a_page_shows_works(path: Path, redis_url: str, namespace: str, tmp_path: Path) -> None:
    environ = {
        "HUB_REDIS_URL": redis_url,
        "EMP_NAMESPACE": namespace,
        "EMP_DATA_DIR": str(tmp_path / "data"),
        "EMP_REDIS_WAIT_S": "10",
        "EMP_LOG_LEVEL": "error",
    }
    with Runner(tmp_path, environ) as runner:
        for block in page(path).blocks:
            if runs(block):
                runner.run(block)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "json"], ids=str)
def test_json_is_json(block: Block) -> None:
    document = json.loads(block.text)
    if isinstance(document, dict) and {"workers", "services"} & document.keys():
        mapping = read_mapping(block.text, load_plugins(), environment(), source=str(block))
        assert mapping.workers.keys() >= document.get("workers", {}).keys()


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_every_block_says_its_language(block: Block) -> None:
    assert block.language in {"python", "sh", "console", "json", "toml", "ini", "text", "yaml", "lua"}

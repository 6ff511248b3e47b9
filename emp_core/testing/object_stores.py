"""Servers that pretend to be object stores: Azurite (from npm) for Azure Blob Storage, moto (from PyPI) for S3.

Each keeps everything in memory, listens on a free port of this machine, and ends with the process that started it.
"""

import json
import re
import secrets
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from attrs import frozen

from emp_core.storage.azure_access import EMULATOR

if TYPE_CHECKING:
    from azure.storage.blob import BlobServiceClient

__all__ = [
    "AZURITE_KEY",
    "NO_AZURITE",
    "NO_MOTO",
    "BlobServer",
    "S3Server",
    "find_azurite",
    "has_moto",
    "run_azurite",
    "run_moto",
]

AZURITE_KEY = EMULATOR["AccountKey"]
"""The key of every Azurite's account, which everybody knows."""
NO_AZURITE = "Azurite is not installed: npm install --global azurite@3.35.0 (it needs Node.js)"
NO_MOTO = "moto is not installed: pip install 'moto[s3]' flask flask-cors"

_START_S = 60.0
_END_S = 10.0
# Node's program ends when its standard input does: with us, whichever way we end.
_WITH_OWNER = "process.stdin.resume().on('end', () => process.exit()); require(process.argv[1])"
_MOTO = """
import logging, os, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

server = make_server("127.0.0.1", 0, DomainDispatcherApplication(create_backend_app), threaded=True)
logging.getLogger("werkzeug").disabled = True
print(f"http://127.0.0.1:{server.port}", flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
server.serve_forever()
"""


@frozen
class BlobServer:
    """A running Azurite, with the account that every Azurite has.

    Attributes:
        endpoint: the address of the account's blobs.
    """

    endpoint: str
    account: str = EMULATOR["AccountName"]
    key: str = AZURITE_KEY

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables by which an ``azure://`` store reaches it."""
        return {
            "AZURE_STORAGE_ACCOUNT": self.account,
            "AZURE_STORAGE_KEY": self.key,
            "AZURE_STORAGE_SERVICE_ENDPOINT": self.endpoint,
        }

    def new_container(self) -> str:
        """Make a container that nobody else has; its name."""
        name = f"test-{secrets.token_hex(6)}"
        with self._service() as service:
            service.create_container(name)
        return name

    def blobs(self, container: str) -> list[str]:
        """The names of a container's blobs."""
        with self._service() as service:
            return sorted(service.get_container_client(container).list_blob_names())

    def _service(self) -> "BlobServiceClient":
        from azure.core.credentials import AzureNamedKeyCredential
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient(self.endpoint, AzureNamedKeyCredential(self.account, self.key))


@frozen
class S3Server:
    """A running moto."""

    endpoint: str
    access_key_id: str = "test"
    secret_access_key: str = "moto-takes-any-secret"  # noqa: S105 - as it says

    @property
    def environ(self) -> Mapping[str, str]:
        """The variables by which an ``s3://`` store reaches it."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.endpoint,
        }

    def new_bucket(self) -> str:
        """Make a bucket that nobody else has; its name."""
        name = f"test-{secrets.token_hex(6)}"
        httpx.put(f"{self.endpoint}/{name}", trust_env=False).raise_for_status()
        return name


def find_azurite() -> Path | None:
    """Azurite's program: in the folder ``node`` of this Python's environment, else on PATH; None: not installed."""
    own = Path(sys.prefix) / "node" / "node_modules" / ".bin"
    found = shutil.which("azurite-blob", path=str(own)) or shutil.which("azurite-blob")
    return Path(found).resolve() if found and shutil.which("node") else None


def has_moto() -> bool:
    """Whether moto and what its server needs are installed."""
    return all(find_spec(name) is not None for name in ("moto", "flask", "flask_cors"))


@contextmanager
def run_azurite(program: Path, *, tls: tuple[Path, Path] | None = None) -> Iterator[BlobServer]:
    """Run Azurite as long as the block lasts.

    Args:
        tls: a certificate and its key, as PEM files: then it speaks https, and takes tokens of identities, too.
    """
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    options += ["--disableProductStyleUrl"]  # else the account is looked for in the host's name
    if tls is not None:
        options += ["--cert", str(tls[0]), "--key", str(tls[1]), "--oauth", "basic"]
    with _running(["node", "-e", _WITH_OWNER, str(program), *options], "successfully listens on ") as url:
        yield BlobServer(f"{url}/{EMULATOR['AccountName']}")


@contextmanager
def run_moto() -> Iterator[S3Server]:
    """Run moto as long as the block lasts."""
    with _running([sys.executable, "-c", _MOTO], "") as url:
        yield S3Server(url)


@contextmanager
def _running(command: Sequence[str], before_url: str) -> Iterator[str]:
    """A process that tells its address in a line of its output, after ``before_url``."""
    process = subprocess.Popen(  # noqa: S603 - the command is ours
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    late = threading.Timer(_START_S, process.kill)
    late.start()
    try:
        url = _told_url(process, before_url)
        late.cancel()
        yield url
    finally:
        late.cancel()
        process.terminate()
        try:
            process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _told_url(process: "subprocess.Popen[str]", before_url: str) -> str:
    said: list[str] = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if found := re.search(rf"{re.escape(before_url)}(https?://\S+)", line):
            return found[1]
    raise RuntimeError(f"{json.dumps(process.args)} ended without saying where it listens:\n{''.join(said[-20:])}")

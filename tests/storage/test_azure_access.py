"""How an Azure storage account is reached: by its key, a shared access signature, a connection string, or an identity."""

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from emp_core.errors import CannotSign, ConfigError, StorageRefused
from emp_core.storage.azure import AzureStore
from emp_core.storage.azure_access import EMULATOR, AzureAccess
from emp_core.testing.object_stores import NO_AZURITE, BlobServer, find_azurite, run_azurite

SECRET = "c2VjcmV0IGtleQ=="
ENOUGH = AccountSasPermissions(read=True, write=True, create=True, list=True, delete=True)


def signature(server: BlobServer, permission: AccountSasPermissions = ENOUGH, *, hours: float = 1) -> str:
    now = datetime.now(UTC)
    return generate_account_sas(
        server.account,
        server.key,
        ResourceTypes(container=True, object=True),
        permission,
        expiry=now + timedelta(hours=hours),
        start=now - timedelta(hours=2),
    )


def by_signature(server: BlobServer, sas_token: str) -> Mapping[str, str]:
    return {
        "AZURE_STORAGE_ACCOUNT": server.account,
        "AZURE_STORAGE_SAS_TOKEN": sas_token,
        "AZURE_STORAGE_SERVICE_ENDPOINT": server.endpoint,
    }


def proofs(server: BlobServer) -> Mapping[str, Mapping[str, str]]:
    sas = signature(server)
    by_key = f"AccountName={server.account};AccountKey={server.key};BlobEndpoint={server.endpoint}"
    return {
        "key": server.environ,
        "signature": by_signature(server, sas),
        "signature with a question mark": by_signature(server, f"?{sas}"),
        "connection string": {"AZURE_STORAGE_CONNECTION_STRING": f"DefaultEndpointsProtocol=http;{by_key};"},
        "connection string with a signature": {
            "AZURE_STORAGE_CONNECTION_STRING": (
                f"AccountName={server.account};BlobEndpoint={server.endpoint};SharedAccessSignature={sas}"
            )
        },
        "names of other tools": {
            "AZURE_STORAGE_ACCOUNT_NAME": server.account,
            "AZURE_STORAGE_ACCOUNT_KEY": server.key,
            "AZURE_STORAGE_SERVICE_ENDPOINT": server.endpoint,
        },
    }


@pytest.mark.parametrize(
    "proof",
    [
        "key",
        "signature",
        "signature with a question mark",
        "connection string",
        "connection string with a signature",
        "names of other tools",
    ],
)
async def test_a_container_is_used_by_every_proof(azurite: BlobServer, proof: str) -> None:
    store = AzureStore.from_url(f"azure://{azurite.new_container()}", proofs(azurite)[proof])
    await store.check()
    await store.put("a/b.txt", b"hello", media_type="text/plain")
    assert b"".join([chunk async for chunk in store.open("a/b.txt")]) == b"hello"
    assert [one.key async for one in store.list_objects()] == ["a/b.txt"]
    await store.delete("a/b.txt")
    assert [one.key async for one in store.list_objects()] == []
    await store.aclose()


async def test_a_signature_signs_nothing(azurite: BlobServer) -> None:
    store = AzureStore.from_url("azure://container", by_signature(azurite, signature(azurite)))
    with pytest.raises(CannotSign):
        await store.sign("a.txt", expires_in_s=60)
    await store.aclose()


@pytest.mark.parametrize("wrong", ["key", "signature that ended", "signature that may read alone", "container"])
async def test_what_is_not_accepted_is_told_with_what_to_look_at_and_no_secret(azurite: BlobServer, wrong: str) -> None:
    container = "nobody-made-this" if wrong == "container" else azurite.new_container()
    environ = {
        "key": {**azurite.environ, "AZURE_STORAGE_KEY": SECRET},
        "signature that ended": by_signature(azurite, signature(azurite, hours=-1)),
        "signature that may read alone": by_signature(azurite, signature(azurite, AccountSasPermissions(read=True))),
        "container": azurite.environ,
    }[wrong]
    store = AzureStore.from_url(f"azure://{container}", environ)
    with pytest.raises(StorageRefused) as told:
        await store.check()
    await store.aclose()
    assert told.value.hint
    shown = f"{told.value} {told.value!r} {store!r} {told.value.__cause__}"
    assert not [secret for secret in (SECRET, azurite.key, "sig=") if secret in shown]


@pytest.mark.parametrize(
    ("environ", "access"),
    [
        (
            {"AZURE_STORAGE_ACCOUNT": "studio7", "AZURE_STORAGE_KEY": SECRET},
            AzureAccess("https://studio7.blob.core.windows.net", "studio7", SECRET),
        ),
        ({"AZURE_STORAGE_ACCOUNT": "studio7"}, AzureAccess("https://studio7.blob.core.windows.net", "studio7")),
        (
            {"AZURE_STORAGE_ACCOUNT": "studio7", "AZURE_STORAGE_KEY": SECRET, "AZURE_STORAGE_SAS_TOKEN": "?sig=x"},
            AzureAccess("https://studio7.blob.core.windows.net", "studio7", SECRET),
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": f"AccountName=studio7;AccountKey={SECRET};EndpointSuffix=core.example.cn"
            },
            AzureAccess("https://studio7.blob.core.example.cn", "studio7", SECRET),
        ),
        (
            {
                "AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=https://studio7.blob.core.windows.net/;SharedAccessSignature=sig=x"
            },
            AzureAccess("https://studio7.blob.core.windows.net", "studio7", None, "sig=x"),
        ),
        (
            {"AZURE_STORAGE_CONNECTION_STRING": "UseDevelopmentStorage=true"},
            AzureAccess(EMULATOR["BlobEndpoint"], EMULATOR["AccountName"], EMULATOR["AccountKey"]),
        ),
    ],
)
def test_the_first_that_is_set_counts(environ: Mapping[str, str], access: AzureAccess) -> None:
    assert AzureAccess.from_environ(environ) == access
    assert SECRET not in repr(access)
    assert "sig=" not in repr(access)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"AZURE_STORAGE_KEY": SECRET},
        {"AZURE_STORAGE_CONNECTION_STRING": SECRET},
        {"AZURE_STORAGE_CONNECTION_STRING": "AccountName=studio7"},
        {"AZURE_STORAGE_ACCOUNT": "No Such!", "AZURE_STORAGE_KEY": SECRET},
        {"AZURE_STORAGE_ACCOUNT": "studio7", "AZURE_STORAGE_SERVICE_ENDPOINT": "ftp://host"},
        {"AZURE_STORAGE_ACCOUNT": "studio7", "AZURE_STORAGE_SERVICE_ENDPOINT": f"https://me:{SECRET}@host"},
        {"AZURE_STORAGE_ACCOUNT": "studio7", "AZURE_STORAGE_SERVICE_ENDPOINT": f"https://host/?sig={SECRET}"},
    ],
)
def test_variables_that_cannot_be_used_are_told_without_their_values(environ: Mapping[str, str]) -> None:
    with pytest.raises(ConfigError) as told:
        AzureAccess.from_environ(environ)
    assert told.value.hint
    assert SECRET not in f"{told.value} {told.value!r}"


def test_a_container_is_used_by_the_identity_of_the_machine(tmp_path: Path) -> None:
    program = find_azurite()
    if program is None:
        pytest.skip(NO_AZURITE)
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(one.bytes() for one in issued.cert_chain_pems))
    with (
        run_azurite(program, tls=(tmp_path / "cert.pem", tmp_path / "key.pem")) as server,
        identity_of_a_machine() as identity,
    ):
        # In a process of its own: which authorities are trusted is read once.
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name("identity_process.py")), server.endpoint],
            env={**os.environ, **identity, "SSL_CERT_FILE": str(tmp_path / "authority.pem")},
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stdout.strip() == "hello [] True AzureStore('azure://art/x', account='devstoreaccount1')", done.stderr


@contextmanager
def identity_of_a_machine() -> Iterator[Mapping[str, str]]:
    """What gives tokens to programs on machines of Azure; the variables by which they find it.

    Source: Microsoft's "REST endpoint reference" of managed identities for App Service.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["X-IDENTITY-HEADER"] == SECRET
            answer = {
                "access_token": token(),
                "expires_on": str(int(time.time()) + 3600),
                "resource": "https://storage.azure.com",
                "token_type": "Bearer",
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as it is called in the class
            """Nothing is logged."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield {"IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.server_port}/msi", "IDENTITY_HEADER": SECRET}
        finally:
            server.shutdown()
            serving.join()


def token() -> str:
    """A token of an identity. Azurite looks at what it says, and at no signature."""
    now = int(time.time())
    claims = {
        "aud": "https://storage.azure.com",
        "iss": "https://sts.windows.net/ab1f708d-50f6-404c-a006-d71b2ac7a606/",
        "oid": "23657296-5cd5-45b0-a809-d972a7f4dfe1",
        "tid": "dd0d0df1-06c3-436c-8034-4b9a153097ce",
        "nbf": now - 300,
        "iat": now - 300,
        "exp": now + 3600,
    }
    return ".".join(map(_part, (json.dumps({"alg": "RS256", "typ": "JWT"}), json.dumps(claims), "signed")))


def _part(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()

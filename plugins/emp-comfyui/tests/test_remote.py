"""Servers elsewhere: behind TLS, a login or a path, and the worker type for them."""

import json
import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trustme
from emp_comfyui import plugin
from emp_comfyui.access import Access
from emp_comfyui.connector import ComfyUIRemoteConnector
from emp_comfyui.settings import ComfyUIRemoteSettings, ComfyUISettings
from emp_comfyui.testing import FakeComfyUI

from emp_core.config import load_settings, variables_of
from emp_core.connectors.base import ServiceConfig
from emp_core.errors import AuthenticationFailed, ConfigError, ServiceUnavailable

from .rig import BY_FRAMES, Rig, Told, one_image, rigged, slow_image

SECRET = "tr0ub4dor&3"
LOGINS = [
    ({"EMP_COMFYUI_TOKEN": SECRET}, f"Bearer {SECRET}"),
    ({"EMP_COMFYUI_USER": "ada", "EMP_COMFYUI_PASSWORD": SECRET}, "Basic YWRhOnRyMHViNGRvciYz"),
    ({"EMP_COMFYUI_HEADERS": json.dumps({"Authorization": f"Key {SECRET}"})}, f"Key {SECRET}"),
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Iterator[str]:
    with authority.cert_pem.tempfile(str(tmp_path)) as path:
        yield path


def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize(("environ", "header"), LOGINS, ids=["bearer", "basic", "header"])
async def test_credentials_go_with_every_request_and_with_the_socket(
    tmp_path: Path, environ: Mapping[str, str], header: str
):
    async with FakeComfyUI(authorization=header) as server, rigged(server.url, tmp_path, **BY_FRAMES, **environ) as rig:
        told = Told()
        await rig.connector.connect()
        result = await rig.run(slow_image(5), told)
        assert {request.status for request in server.requests} <= {101, 200, 404, None}
    assert len(result.artifacts) == 1
    assert "ProbeSlow 3/5" in told.messages


async def test_a_server_that_wants_a_login_pauses_the_service_instead_of_failing_jobs(tmp_path: Path):
    other = FakeComfyUI(authorization="Bearer other")
    async with other as server, rigged(server.url, tmp_path, EMP_COMFYUI_TOKEN=SECRET) as rig:
        with pytest.raises(AuthenticationFailed) as caught:
            await rig.connector.connect()
        with pytest.raises(AuthenticationFailed):
            await rig.run(one_image())
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.details)


@pytest.mark.parametrize(("environ", "header"), LOGINS, ids=["bearer", "basic", "header"])
def test_secrets_are_shown_nowhere(environ: Mapping[str, str], header: str):
    settings = load_settings(ComfyUISettings, environ)
    config = ServiceConfig("comfyui", environ)
    for shown in (settings, settings.access, config, ComfyUIRemoteConnector):
        assert SECRET not in repr(shown)
        assert header not in repr(shown)
    with pytest.raises(ConfigError) as caught:
        load_settings(ComfyUISettings, {"EMP_COMFYUI_HEADERS": f"{SECRET} is no JSON"})
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.problems)


async def test_a_server_with_a_certificate_of_our_own_authority_is_spoken_to_over_tls(
    tmp_path: Path, authority: trustme.CA, ca_file: str
):
    tls = {"EMP_COMFYUI_TLS": "true", "EMP_COMFYUI_CA_FILE": ca_file}
    async with FakeComfyUI(tls=serving(authority)) as server, rigged(server.url, tmp_path, **BY_FRAMES, **tls) as rig:
        assert server.url.startswith("https://")
        told = Told()
        await rig.connector.connect()
        assert len((await rig.run(slow_image(5), told)).artifacts) == 1
    assert "ProbeSlow 3/5" in told.messages


async def test_a_certificate_that_nobody_vouches_for_is_refused_unless_told_not_to_look(
    tmp_path: Path, authority: trustme.CA
):
    async with FakeComfyUI(tls=serving(authority)) as server:
        async with rigged(server.url, tmp_path, EMP_COMFYUI_TLS="true") as rig:
            with pytest.raises(ServiceUnavailable, match="certificate"):
                await rig.connector.connect()
        async with rigged(server.url, tmp_path, EMP_COMFYUI_TLS="true", EMP_COMFYUI_VERIFY="false") as rig:
            assert len((await rig.run(one_image())).artifacts) == 1


async def test_a_server_that_wants_a_certificate_of_ours_gets_it(tmp_path: Path, authority: trustme.CA, ca_file: str):
    mutual = serving(authority)
    authority.configure_trust(mutual)
    mutual.verify_mode = ssl.CERT_REQUIRED
    tls = {"EMP_COMFYUI_TLS": "true", "EMP_COMFYUI_CA_FILE": ca_file}
    ours = authority.issue_cert("worker.example")
    with ours.private_key_and_cert_chain_pem.tempfile(str(tmp_path)) as cert_file:
        async with FakeComfyUI(tls=mutual) as server:
            async with rigged(server.url, tmp_path, **tls, EMP_COMFYUI_CERT_FILE=cert_file) as rig:
                assert len((await rig.run(one_image())).artifacts) == 1
            async with rigged(server.url, tmp_path, **tls) as rig:
                with pytest.raises(ServiceUnavailable):
                    await rig.connector.connect()


def test_a_certificate_file_that_cannot_be_read_is_a_mistake_of_the_configuration(tmp_path: Path):
    with pytest.raises(ConfigError, match="no-such-file"):
        Access("host", 443, tls=True, ca_file=str(tmp_path / "no-such-file")).ssl_context()
    (tmp_path / "no.pem").write_text("not PEM", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"no\.pem"):
        Access("host", 443, tls=True, cert_file=str(tmp_path / "no.pem")).ssl_context()


async def test_a_server_behind_a_path_is_found_there(tmp_path: Path):
    async with FakeComfyUI(prefix="/comfy/a") as server:
        async with rigged(server.url, tmp_path, **BY_FRAMES, EMP_COMFYUI_BASE_PATH="/comfy/a/") as rig:
            await rig.connector.connect()
            assert (await rig.connector.check_health()).ok
            assert len((await rig.run(one_image())).artifacts) == 1
        assert server.requested("/system_stats")


def test_a_token_and_a_login_at_once_are_refused():
    with pytest.raises(ConfigError, match="a token and a user"):
        Access("host", 80, token="t", user="u").sent_headers()


@pytest.mark.parametrize(
    "text", ["[]", "no", '{"a": 1}', '{"Origin": "x"}', '{"a b": "c"}', '{"a": "x\\ny"}', '{"a": "ü"}']
)
def test_headers_that_cannot_be_sent_are_refused(text: str):
    with pytest.raises(ConfigError, match="EMP_COMFYUI_HEADERS"):
        load_settings(ComfyUISettings, {"EMP_COMFYUI_HEADERS": text})


def remote_environ(server: FakeComfyUI, **more: str) -> dict[str, str]:
    return {
        # The local server's variables are not the remote one's.
        "COMFYUI_HOST": "198.51.100.1",
        "COMFYUI_BASE_PORT": "1",
        "EMP_COMFYUI_TOKEN": "local",
        "COMFYUI_REMOTE_HOST": "127.0.0.1",
        "COMFYUI_REMOTE_PORT": str(server.port),
        **more,
    }


async def test_the_remote_worker_type_has_variables_of_its_own(tmp_path: Path):
    async with FakeComfyUI(authorization=f"Bearer {SECRET}") as server:
        environ = remote_environ(server, EMP_COMFYUI_REMOTE_TOKEN=SECRET)
        connector = ComfyUIRemoteConnector(ServiceConfig("comfyui-remote", environ))
        try:
            await connector.connect()
            assert len((await Rig(connector, tmp_path).run(one_image())).artifacts) == 1
        finally:
            await connector.disconnect()


def test_the_remote_worker_type_takes_the_same_jobs_and_installs_nothing():
    mapping = plugin.emp_service_mapping()
    required = [row["job_service_required"] for row in mapping["workers"]["comfyui-remote"]["job_service_required_map"]]
    assert required == ["comfyui", "comfyui-remote"]
    assert mapping["services"]["comfyui-remote"]["type"] == "external_service"
    assert "installer" not in mapping["services"]["comfyui-remote"]


def test_every_variable_of_the_address_has_a_remote_twin_and_mistakes_are_told_by_its_name():
    names = {variable.name for variable in variables_of(ComfyUIRemoteSettings)}
    assert {"COMFYUI_REMOTE_HOST", "COMFYUI_REMOTE_PORT", "EMP_COMFYUI_REMOTE_TLS", "EMP_COMFYUI_REMOTE_TOKEN"} <= names
    assert all(variable.secret for variable in variables_of(ComfyUIRemoteSettings) if "TOKEN" in variable.name)
    environ = {"COMFYUI_REMOTE_HOST": "h", "EMP_COMFYUI_REMOTE_TLS": "maybe"}
    with pytest.raises(ConfigError) as caught:
        ComfyUIRemoteConnector(ServiceConfig("comfyui-remote", environ))
    assert "EMP_COMFYUI_REMOTE_TLS='maybe'" in caught.value.problems[0]
    with pytest.raises(ConfigError, match="COMFYUI_REMOTE_HOST is not set"):
        ComfyUIRemoteConnector(ServiceConfig("comfyui-remote", {}))

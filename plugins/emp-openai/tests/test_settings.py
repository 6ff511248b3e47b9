"""What the environment, the price table and payloads may say, and how mistakes in them are told."""

import json
from pathlib import Path
from typing import Any

import pytest
from emp_openai.connector import OpenAIConnector
from emp_openai.payloads import PAYLOADS, Chat, Edit, Embed, Image, Respond
from emp_openai.prices import Prices
from emp_openai.settings import OpenAISettings

from emp_core.config import load_settings
from emp_core.connectors.base import ServiceConfig
from emp_core.connectors.payloads import read_payload
from emp_core.errors import ConfigError, InvalidJob

KEY = "sk-very-secret"


def settings(**environ: str) -> OpenAISettings:
    return load_settings(OpenAISettings, environ)


def problems(accounts: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        settings(EMP_OPENAI_ACCOUNTS=accounts if isinstance(accounts, str) else json.dumps(accounts))
    return str(caught.value)


def test_one_account_needs_nothing_but_its_variables() -> None:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_ORGANIZATION": "org", "OPENAI_PROJECT_ID": "proj"}
    [account] = settings(**environ).account_configs(environ)
    assert (account.name, account.base_url) == ("openai", "https://api.openai.com/v1")
    assert (account.api_key, account.organization, account.project) == (KEY, "org", "proj")


def test_the_key_and_who_is_charged_are_in_the_headers() -> None:
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_ORG_ID": "org", "OPENAI_PROJECT_ID": "proj"}
    headers = OpenAIConnector(ServiceConfig("openai", environ)).accounts["openai"].make_headers()
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (headers["openai-organization"], headers["openai-project"]) == ("org", "proj")


def test_without_a_key_none_is_sent() -> None:
    accounts = OpenAIConnector(ServiceConfig("openai", {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"})).accounts
    assert "authorization" not in accounts["openai"].make_headers()


@pytest.mark.parametrize(
    ("accounts", "said"),
    [
        ("[", "expected a JSON list"),
        ({"name": "a"}, "expected a JSON list of objects"),
        (["a"], "expected a JSON list of objects"),
        ([{"base_url": "http://a/v1"}], "[0].name: expected a text"),
        ([{"name": "a", "keey": KEY}], "[0]: unknown keey"),
        ([{"name": "a", "slots": 0}], "[0].slots: expected a whole number of 1 or more"),
        ([{"name": "a", "priority": True}], "[0].priority: expected a whole number"),
        ([{"name": "a", "models": "gpt"}], "[0].models: expected a list of texts"),
        ([{"name": "a", "resend": "yes"}], "[0].resend: expected true or false"),
        ([{"name": "a", "api_key": 5}], "[0].api_key: expected a text"),
        ([{"name": "a", "base_url": "ftp://a"}], "[0].base_url: expected an http:// or https:// address"),
        ([{"name": "a", "base_url": f"http://{KEY}@a/v1"}], "without credentials"),
        ([{"name": "a"}, {"name": "a"}], "two accounts have the name 'a'"),
    ],
)
def test_mistakes_in_accounts_are_told_without_their_keys(accounts: Any, said: str) -> None:
    told = problems(accounts)
    assert said in told
    assert KEY not in told


def test_a_key_that_is_not_there_is_told_by_the_name_of_its_variable() -> None:
    environ = {"EMP_OPENAI_ACCOUNTS": json.dumps([{"name": "a", "api_key_env": "TEAM_KEY"}])}
    with pytest.raises(ConfigError, match="TEAM_KEY"):
        OpenAIConnector(ServiceConfig("openai", environ))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", "cannot be read"),
        ("[]", "expected an object"),
        ('{"a": 5}', "a: expected an object"),
        ('{"a": {"inptu": 1}}', "a.inptu: unknown"),
        ('{"a": {"input": -1}}', "a.input: expected a number"),
        ('{"a": {"input": true}}', "a.input: expected a number"),
        ('{"a": {"input": NaN}}', "a.input: expected a number"),
    ],
)
def test_mistakes_in_a_price_table_are_told(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "prices.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigError) as caught:
        Prices.read(path)
    assert said in str(caught.value)


def test_a_price_table_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prices\.json"):
        OpenAIConnector(ServiceConfig("openai", {"EMP_OPENAI_PRICES": str(tmp_path / "prices.json")}))


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        ({"messages": []}, Chat),
        ({"prompt": "x"}, Image),
        ({"prompt": "x", "image": "aGk="}, Edit),
        ({"input": "x"}, Respond),
        ({"input": "x", "task": "embeddings"}, Embed),
        ({"prompt": "x", "task": "chat"}, Chat),
        ({"input": "x", "background": False}, Respond),
        ({"prompt": "x", "background": "transparent"}, Image),
    ],
)
def test_a_task_is_told_by_its_fields(payload: dict[str, Any], kind: type) -> None:
    task = read_payload(PAYLOADS["openai"], {"model": "m", **payload}).meant()
    assert type(task) is kind
    assert task.body().get("background") == (
        payload["background"] if kind is Image and "background" in payload else None
    )
    if isinstance(task, Respond):
        assert task.background is payload.get("background", True)


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"messages": [], "prompt": "x"},
        {"prompt": ""},
        {"task": "sing", "prompt": "x"},
        {"task": "embeddings", "prompt": "x"},
        {"task": "edits", "prompt": "x"},
        {"input": "x", "background": "yes"},
        {"prompt": "x", "fallbacks": [5]},
        {"prompt": "x", "fallbacks": [{"modle": "m"}]},
    ],
)
def test_payloads_that_cannot_be_right_are_refused(payload: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        read_payload(PAYLOADS["openai"], {"model": "m", **payload})

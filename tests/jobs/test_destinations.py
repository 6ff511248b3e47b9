"""Where a job's outputs go is checked at submit, before anybody has worked for it."""

from typing import Any

import pytest

from emp_core.jobs.destinations import destination_problems, is_retention_class, shown_storage
from emp_core.jobs.model import Destination

OWN = {"bucket": "pictures", "accountName": "studio7", "accountKey": "geheim"}


@pytest.mark.parametrize(
    "ctx",
    [
        Destination(),
        Destination(storage=OWN, prefix="shots/010", filename="final.png", retention="draft"),
        Destination(
            storage={**OWN, "endpoint": "https://blobs.example.com/studio7", "cdnUrl": "https://cdn.example.com"}
        ),
        Destination(storage={**OWN, "bucket": "$web", "endpoint": "", "cdnUrl": ""}),
        Destination(storage={"store": "final"}),
        Destination(prefix="/shots/", filename="ünï code", retention="7-days_or_so"),
        Destination(prefix="", filename=""),
    ],
)
def test_what_can_be_used_is_taken(ctx: Destination):
    assert destination_problems(ctx) == []


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"bucket": ""}, "ctx.storage.bucket: missing"),
        ({"bucket": "Up/../per"}, "ctx.storage.bucket: expected the name of a container"),
        ({"accountName": "evil.example.com/"}, "ctx.storage.accountName: expected the name of a storage account"),
        ({"accountKey": ""}, "ctx.storage.accountKey: missing"),
        ({"endpoint": "file:///etc"}, "ctx.storage.endpoint: expected a URL"),
        ({"endpoint": "https://me:geheim@host"}, "ctx.storage.endpoint: expected a URL without login"),
        ({"endpoint": "https://host/?sig=geheim"}, "ctx.storage.endpoint: expected a URL without login and query"),
        ({"cdnUrl": "cdn.example.com"}, "ctx.storage.cdnUrl: expected a URL"),
        ({"token": "geheim"}, "ctx.storage.token: unknown; known are store, or bucket"),
        ({"store": "final"}, "ctx.storage.accountKey: a named store brings it along"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_with_its_place_and_no_secret(changed: dict[str, str], told: str):
    problems = destination_problems(Destination(storage={**OWN, **changed}))
    assert any(problem.startswith(told) for problem in problems), problems
    assert "geheim" not in "".join(problems)


@pytest.mark.parametrize(
    ("ctx", "told"),
    [
        (Destination(prefix="../up"), "ctx.prefix: '../up' tries to leave its folder"),
        (Destination(prefix="a//b"), "ctx.prefix"),
        (Destination(filename="a/b.png"), "ctx.filename: 'a/b.png' holds a folder"),
        (Destination(filename=".."), "ctx.filename: '..' tries to leave its folder"),
        (Destination(filename="a\\b"), "ctx.filename"),
        (Destination(retention="for ever"), "ctx.retention: expected 1 to 32 letters"),
        (Destination(retention=""), "ctx.retention"),
        (Destination(retention=7), "ctx.retention: expected a text"),  # type: ignore[arg-type]
        (Destination(storage=["a"]), "ctx.storage: expected texts by name"),  # type: ignore[arg-type]
    ],
)
def test_names_that_cannot_be_used_are_told(ctx: Any, told: str):
    [problem] = destination_problems(ctx)
    assert problem.startswith(told)


def test_all_mistakes_are_told_at_once():
    ctx = Destination(storage={"bucket": "b", "more": "x"}, prefix="/..", filename="a/b", retention="?")
    assert len(destination_problems(ctx)) == 6


def test_of_a_store_only_what_is_known_to_be_no_secret_is_shown():
    shown = shown_storage({**OWN, "store": "s", "endpoint": "e", "cdnUrl": "c", "whatever": "geheim"})
    assert shown == {
        **OWN,
        "store": "s",
        "endpoint": "e",
        "cdnUrl": "c",
        "accountKey": "(hidden)",
        "whatever": "(hidden)",
    }


@pytest.mark.parametrize(
    ("name", "may"), [("draft", True), ("A-1_b", True), ("", False), ("-a", False), ("x" * 33, False)]
)
def test_a_retention_class_has_a_plain_name(name: str, may: bool):
    assert is_retention_class(name) is may

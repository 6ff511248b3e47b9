"""Reading payloads, and setting their fields."""

import io
import sys
from pathlib import Path
from typing import Any

import pytest

from emp_core.cli.payload import apply_fields, read_payload
from emp_core.errors import ConfigError, PayloadTooLarge


def read(source: str | None, max_bytes: int = 10_000) -> dict[str, Any]:
    return read_payload(source, max_bytes=max_bytes)


def test_a_payload_comes_from_a_file_from_stdin_from_the_command_line_or_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "payload.json"
    file.write_bytes('\ufeff{"where": "a file, ä"}'.encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"where": "stdin"}')))
    assert read(str(file)) == {"where": "a file, ä"}
    assert read("-") == {"where": "stdin"}
    assert read(' {"where": "here"}') == {"where": "here"}
    assert read(None) == {}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a":\n x}', "line 2, column 2"),
        ("", "it is empty"),
        ("[1, 2]", "is a list, and a JSON object is needed"),
        ('"text"', "is a text, and"),
        ("null", "is null, and"),
        ('{"a": NaN}', "NaN is no JSON number"),
        ('{"a": "\\ud800"}', "half of a surrogate pair"),
        ('{"a": ' + "[" * 100_000, "nested too deeply"),
        ("{'a': 1}", "line 1, column 2"),
    ],
)
def test_what_is_no_json_object_is_told_with_its_place(text: str, told: str, tmp_path: Path):
    file = tmp_path / "payload.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        read(str(file), max_bytes=10**6)
    assert told in raised.value.message
    assert str(file) in raised.value.message


def test_bytes_that_are_no_text_are_told_with_their_place(tmp_path: Path):
    (tmp_path / "payload.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(ConfigError, match="byte 7 is not UTF-8"):
        read(str(tmp_path / "payload.json"))


@pytest.mark.parametrize("name", ["missing.json", ".", "[1]", "\0"])
def test_a_file_that_cannot_be_read_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read(name)


def test_what_cannot_fit_is_refused_without_being_read_whole(monkeypatch: pytest.MonkeyPatch):
    class Endless(io.RawIOBase):
        given = 0

        def read(self, size: int = -1) -> bytes:
            assert size > 0
            self.given += size
            return b" " * size

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", type("Stdin", (), {"buffer": endless}))
    with pytest.raises(PayloadTooLarge, match="at most 1,000 are taken"):
        read("-", max_bytes=1000)
    assert endless.given < 10_000


def test_fields_are_set_at_any_depth_and_values_are_json_where_they_can_be():
    payload: dict[str, Any] = {"6": {"inputs": {"text": "old"}}, "items": [{"n": 1}]}
    apply_fields(
        payload,
        (
            "6.inputs.text=a red fox",
            "3.inputs.seed=7",
            "items.0.n=2",
            "flag=true",
            "word=truth",
            "list=[1, 2]",
            'quoted="7"',
            "empty=",
            "url=http://x/?a=b",
            r"dotted\.name=1",
            "nan=NaN",
        ),
    )
    assert payload == {
        "6": {"inputs": {"text": "a red fox"}},
        "3": {"inputs": {"seed": 7}},
        "items": [{"n": 2}],
        "flag": True,
        "word": "truth",
        "list": [1, 2],
        "quoted": "7",
        "empty": "",
        "url": "http://x/?a=b",
        "dotted.name": 1,
        "nan": "NaN",
    }


def test_every_assignment_that_cannot_be_carried_out_is_told():
    with pytest.raises(ConfigError) as raised:
        apply_fields({"a": 1, "l": []}, ("novalue", "=1", "a.b=1", "l.0=1", "a..b=1", "fine=1"))
    assert len(raised.value.problems) == 5
    assert any("a is a number, so nothing can be set in it" in problem for problem in raised.value.problems)

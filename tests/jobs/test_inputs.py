"""Files that a job refers to are found wherever they stand, and what is wrong with them is told by its place."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.errors import ConfigError, PayloadTooLarge
from emp_core.jobs.codec import as_shown, encode_spec
from emp_core.jobs.inputs import InputPlace, InputRef, inputs_of, with_values
from emp_core.jobs.model import Job, JobSpec
from emp_core.jobs.requirements import Requirement
from emp_core.jobs.states import JobState

URL = {"$input": {"url": "https://files.example/cat.png?sig=geheim"}}
BYTES = {"$input": {"base64": base64.b64encode(b"some bytes").decode(), "name": "a.bin", "max_bytes": 10}}
PATH = {"$input": {"path": "/mnt/in/cat.png", "media_type": "Image/PNG; q=1", "sha256": "A" * 64}}
ARTIFACT = {"$input": {"artifact": "job-1/1-0-cat.png"}}


def read(said: Any) -> InputRef:
    return InputRef.from_payload({"$input": said})


def test_files_are_found_wherever_they_stand_in_their_order() -> None:
    payload = {"image": URL, "list": [1, [BYTES, "x"], {"deep": {"er": PATH}}], "text": "$input", "last": ARTIFACT}
    found, problems = inputs_of(payload)
    assert not problems
    assert [str(one) for one in found] == [
        "payload.image",
        "payload.list[1][0]",
        "payload.list[2].deep.er",
        "payload.last",
    ]
    assert [one.ref.source for one in found] == ["url", "base64", "path", "artifact"]


def test_a_payload_can_be_a_file_itself() -> None:
    assert inputs_of(URL) == ([InputPlace((), InputRef.from_payload(URL))], [])


def test_a_file_says_what_it_is_in_one_form() -> None:
    assert read({"path": "/a/b.png", "media_type": "Image/PNG; q=1", "sha256": "A" * 64}) == InputRef(
        "path", "/a/b.png", media_type="image/png", sha256="a" * 64
    )
    assert read({"base64": " aGVs\nbG8=\n"}).at == "aGVsbG8="


@pytest.mark.parametrize("value", [URL, BYTES, PATH, ARTIFACT])
def test_a_file_can_be_written_back(value: dict[str, Any]) -> None:
    ref = InputRef.from_payload(value)
    assert InputRef.from_payload(ref.as_payload()) == ref


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "expected one of url, artifact, base64, path"),
        ({"name": "a.png"}, "expected one of url"),
        ({"url": "https://a.example/", "path": "/a"}, "not url, path together"),
        ({"url": "https://a.example/", "nmae": "a"}, "unknown: nmae"),
        ({"url": ""}, "url: expected a text that is not empty"),
        ({"url": 7}, "url: expected a text that is not empty, not a number"),
        ({"url": "file:///etc/passwd"}, "expected an http or https URL"),
        ({"url": "https:///cat.png"}, "expected an http or https URL with a host"),
        ({"url": "https://[::1/"}, "cannot be read as a URL"),
        ({"url": "https://a.example:99999/"}, "cannot be read as a URL"),
        ({"url": "https://me:geheim@a.example/"}, "a login may not stand in it"),
        ({"url": "https://a.example/ b"}, "without spaces"),
        ({"url": "https://a.example/\n"}, "printable"),
        ({"url": "https://a.example/" + "a" * 9000}, "at most 8192"),
        ({"base64": "not base64!"}, "it is no base64"),
        ({"base64": "aGVsbG8"}, "it is no base64"),
        ({"base64": "grün"}, "it is no base64"),
        ({"base64": "data:image/png;base64,aGVsbG8="}, "without 'data:…,' in front"),
        ({"base64": "===="}, "it is no base64"),
        ({"path": "a\0b"}, "printable"),
        ({"artifact": None}, "artifact: expected a text that is not empty, not null"),
        ({"path": "/a", "name": "../a"}, "without folders"),
        ({"path": "/a", "name": ".."}, "without folders"),
        ({"path": "/a", "name": "a\\b"}, "without folders"),
        ({"path": "/a", "name": "a" * 300}, "at most 200 bytes"),
        ({"path": "/a", "media_type": "png"}, "such as image/png"),
        ({"path": "/a", "sha256": "abc"}, "64 hexadecimal digits"),
        ({"path": "/a", "max_bytes": 0}, "1 or more"),
        ({"path": "/a", "max_bytes": True}, "1 or more"),
        ({"path": "/a", "max_bytes": "10"}, "1 or more"),
        ("https://a.example/", "expected an object with one of url"),
        (None, "expected an object"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_by_its_place(said: Any, why: str) -> None:
    found, [problem] = inputs_of({"images": [{"$input": said}]})
    assert not found
    assert problem.startswith("payload.images[0]: ")
    assert why in problem


def test_a_reference_stands_alone_in_its_object() -> None:
    _, [problem] = inputs_of({"image": {**URL, "strength": 0.5}})
    assert problem == "payload.image: $input stands alone in its object, not beside strength"


def test_no_problem_repeats_a_secret() -> None:
    _, problems = inputs_of(
        [{"$input": {"url": "https://me:geheim@a.example/?sig=geheim", "geheim": 1, "sha256": "geheim"}}]
    )
    assert "geheim@" not in str(problems)
    assert "sig=" not in str(problems)


def test_files_that_stand_too_deep_are_a_problem_and_no_crash() -> None:
    payload: Any = URL
    for _ in range(100_000):
        payload = [payload]
    assert "more than 100 levels deep" in inputs_of(payload)[1][0]


def test_many_mistakes_are_told_by_their_number() -> None:
    _, problems = inputs_of([{"$input": None}] * 1000)
    assert len(problems) == 21
    assert problems[-1] == "and 980 more files that cannot be used"


def test_a_job_refers_to_so_many_files_and_no_more_and_all_are_hidden() -> None:
    assert inputs_of([URL] * 1000)[1] == []
    found, [problem] = inputs_of({"frames": [URL] * 1001})
    assert problem == "payload: 1,001 files are more than the 1,000 that a job may refer to"
    assert len(found) == 1001


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner),
    max_leaves=20,
)
WITH_FILES = st.recursive(
    st.just(URL) | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner),
    max_leaves=20,
)


@given(JSON)
def test_a_payload_without_files_stays_as_it_is(payload: Any) -> None:
    assert inputs_of(payload) == ([], [])
    assert with_values(payload, {}) == payload


@given(WITH_FILES)
def test_every_file_can_be_replaced_and_nothing_else_is(payload: Any) -> None:
    found, _ = inputs_of(payload)
    replaced = with_values(payload, {one.place: "here" for one in found})
    assert inputs_of(replaced) == ([], [])
    assert with_values(replaced, {one.place: URL for one in found}) == payload


def test_replacing_leaves_the_payload_that_it_was_given_alone() -> None:
    payload = {"image": URL, "rest": [1, 2]}
    assert with_values(payload, {("image",): "cat.png"}) == {"image": "cat.png", "rest": [1, 2]}
    assert payload == {"image": URL, "rest": [1, 2]}


def test_files_that_cannot_be_used_are_refused_at_submit() -> None:
    with pytest.raises(ConfigError) as caught:
        encode_spec(JobSpec("echo", {"a": {"$input": {}}, "b": [{"$input": 7}]}), max_payload_bytes=10_000)
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["payload.a", "payload.b[0]"]


def test_the_bytes_of_a_file_in_base64_count_for_the_payload() -> None:
    big = {"$input": {"base64": base64.b64encode(bytes(1000)).decode()}}
    with pytest.raises(PayloadTooLarge):
        encode_spec(JobSpec("echo", {"image": big}), max_payload_bytes=1000)


def test_neither_signatures_nor_bytes_are_shown() -> None:
    job = Job("j", "echo", "echo", JobState.PENDING, payload=[URL, BYTES], requirement=Requirement.plain("echo"))
    assert as_shown(job)["payload"] == [
        {"$input": {"url": "https://files.example/cat.png?(hidden)"}},
        {"$input": {"base64": "(10 bytes)", "name": "a.bin", "max_bytes": 10}},
    ]
    assert "geheim" not in repr(inputs_of([URL, BYTES]))

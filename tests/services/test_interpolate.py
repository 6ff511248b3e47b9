import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emp_core.services.interpolate import expand, interpolate

ENVIRON = {"HOST": "gpu-1", "EMPTY": "", "MONEY": "$HOST ${HOST} $$", "A_1": "x"}


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${HOST}", "gpu-1"),
        ("http://${HOST}:${PORT:-8188}/", "http://gpu-1:8188/"),
        ("${HOST:-other}", "gpu-1"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("${UNSET:-}", ""),
        ("${UNSET:-${HOST}}", "gpu-1"),
        ("${UNSET:-${OTHER:-a}b}c", "abc"),
        ("${HOST:-${UNSET}}", "gpu-1"),
        ("${UNSET:-https://example.org/a:-b}", "https://example.org/a:-b"),
        ("${UNSET:-$$5}", "$5"),
        ("$$", "$"),
        ("$${HOST}", "${HOST}"),
        ("$$$${HOST}", "$${HOST}"),
        ("$$${HOST}", "$gpu-1"),
        ("p$5w", "p$5w"),
        ("$HOST", "$HOST"),
        ("$", "$"),
        ("a}b{c", "a}b{c"),
        ("${MONEY}", "$HOST ${HOST} $$"),
        ("${A_1}", "x"),
    ],
)
def test_references_are_replaced_and_other_dollars_stay(text: str, expanded: str):
    assert interpolate(text, ENVIRON) == expanded


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${UNSET}", "the variable UNSET is not set"),
        ("${UNSET:-${OTHER}}", "the variable OTHER is not set"),
        ("${HOST", "cannot be read"),
        ("${UNSET:-abc", "lacks the '}'"),
        ("${}", "cannot be read"),
        ("${1A}", "cannot be read"),
        ("${HOST-default}", "cannot be read"),
        ("${HOST:?message}", "cannot be read"),
        ("${A B}", "cannot be read"),
        ("${A:-" * 50_000, "cannot be read"),
    ],
)
def test_references_that_cannot_be_replaced_are_mistakes(text: str, says: str):
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        interpolate(text, ENVIRON)
    assert len(str(caught.value)) < 300


@given(st.text())
def test_a_text_with_its_dollars_doubled_is_itself(text: str):
    assert interpolate(text.replace("$", "$$"), {}) == text


@given(st.text(alphabet=st.characters(exclude_characters="$")))
def test_a_text_without_dollars_stays_as_it_is(text: str):
    assert interpolate(text, {}) == text


@given(st.text(max_size=40), st.text(), st.text())
def test_a_value_is_put_in_as_it_is_whatever_it_holds(value: str, before: str, after: str):
    text = f"{before.replace('$', '$$')}${{VAR}}{after.replace('$', '$$')}"
    assert interpolate(text, {"VAR": value}) == f"{before}{value}{after}"


@given(st.text(alphabet="${}:-AB", max_size=30), st.dictionaries(st.sampled_from("AB"), st.text(max_size=5)))
def test_any_text_is_replaced_or_refused_with_a_sentence(text: str, environ: dict[str, str]):
    try:
        assert isinstance(interpolate(text, environ), str)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - either may come, and both must be sound


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters(exclude_characters="$")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=10,
)


@given(JSON)
def test_values_without_references_keep_their_shape(value: Any):
    problems: list[tuple[str, str]] = []
    assert expand(value, {}, "x", lambda *problem: problems.append(problem)) == value
    assert problems == []


def test_only_texts_are_replaced_and_mistakes_carry_their_path():
    problems: list[tuple[str, str]] = []
    value = {"${HOST}": ["${HOST}", 1, None, True, {"a.b": "${UNSET}"}], "deep": {"x": "${"}}
    expanded = expand(value, ENVIRON, "services.mine", lambda *problem: problems.append(problem))
    assert expanded["${HOST}"][:4] == ["gpu-1", 1, None, True]
    assert [path for path, _ in problems] == ['services.mine["${HOST}"][4]["a.b"]', "services.mine.deep.x"]


def test_what_is_nested_too_deep_is_a_mistake_and_no_crash():
    value: Any = "x"
    for _ in range(500):
        value = [value]
    problems: list[tuple[str, str]] = []
    expand(value, {}, "x", lambda *problem: problems.append(problem))
    assert len(problems) == 1

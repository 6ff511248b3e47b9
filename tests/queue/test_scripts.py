"""The scripts' headers are what callers read: they say what is so."""

import re
from importlib import resources

import pytest

from emp_core.jobs.states import TRANSITIONS, JobState
from emp_core.queue.keys import FIXED_KEYS
from emp_core.queue.scripts import SCRIPT_NAMES, load_script

LUA = resources.files("emp_core.queue") / "lua"


def bodies(name: str) -> dict[str, str]:
    """The code of a script and of what it includes, by file, without comments."""
    names = [name, *(f"include/{part}" for part in load_script(name).header.words("include"))]
    texts = {one: (LUA / f"{one}.lua").read_text(encoding="utf-8") for one in names}
    return {one: "\n".join(line.split("--")[0] for line in text.splitlines()) for one, text in texts.items()}


def header_words(file: str, field: str) -> list[str]:
    text = (LUA / f"{file}.lua").read_text(encoding="utf-8")
    found = re.search(rf"^--- {field}: (.*)$", text, re.MULTILINE)
    return found[1].split() if found else []


ALL_FILES = [
    *SCRIPT_NAMES,
    *(
        f"include/{path.name.removesuffix('.lua')}"
        for path in (LUA / "include").iterdir()
        if path.name.endswith(".lua")
    ),
]


def test_every_script_is_known():
    files = {path.name.removesuffix(".lua") for path in LUA.iterdir() if path.name.endswith(".lua")}
    assert files == set(SCRIPT_NAMES)
    assert len(set(SCRIPT_NAMES)) == len(SCRIPT_NAMES)


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_the_moves_that_a_header_names_are_those_of_the_table(name: str):
    said = {tuple(move.split(">")) for move in load_script(name).header.words("transitions")}
    known = {("none" if before is None else str(before), str(after)) for before, after in TRANSITIONS.get(name, ())}
    assert said == known


def test_every_move_of_the_table_is_some_scripts():
    assert set(TRANSITIONS) <= set(SCRIPT_NAMES)
    assert all(isinstance(after, JobState) for moves in TRANSITIONS.values() for _, after in moves)


@pytest.mark.parametrize("file", ALL_FILES)
def test_a_file_uses_every_key_and_argument_that_its_header_names(file: str):
    code = "\n".join(line.split("--")[0] for line in (LUA / f"{file}.lua").read_text("utf-8").splitlines())
    included = [f"include/{part}" for part in header_words(file, "include")]
    handed_on = {word for part in included for field in ("keys", "argv") for word in header_words(part, field)}
    unused = [key for key in header_words(file, "keys") if not re.search(rf"\b{key}_key\b", code)]
    unused += [name for name in header_words(file, "argv") if not re.search(rf"\b{name}\b", code)]
    assert not set(unused) - handed_on


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_names_every_key_and_argument_that_it_uses(name: str):
    script = load_script(name)
    code = "\n".join(bodies(name).values())
    assert not set(re.findall(r"\b([a-z_]+)_key\b", script.source)) & set(FIXED_KEYS)
    assert all(re.search(rf"\b{name}\b", code) for name in script.argv)


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_is_given_the_keys_that_it_uses_and_no_more(name: str):
    """Every key that comes along costs as much as a small command."""
    script = load_script(name)
    assert {int(index) for index in re.findall(r"\bKEYS\[(\d+)\]", script.source)} == set(
        range(1, len(script.keys) + 1)
    )


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_the_constants_of_a_script_are_written_where_they_are_used(name: str):
    """A name around a function costs in every call, a number in it does not."""
    code = "\n".join(bodies(name).values())
    constants = set(re.findall(r"^local ([A-Z_]+) = [\d.]+ *$", code, re.MULTILINE))
    assert not [one for one in constants if re.search(rf"\b{one}\b", load_script(name).source)]


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_header_says_what_the_script_does_and_gives(name: str):
    header = load_script(name).header
    assert header.purpose.endswith(".")
    assert header.fields["returns"]
    assert ("rest" in header.fields) == bool(re.search(r"\brest\b", bodies(name)[name]))


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_numbers_become_text_with_all_their_digits(name: str):
    """`..` and `tostring` lose digits beyond 14: times have 16."""
    for file, code in bodies(name).items():
        assert "tostring(" not in code, file
        assert not re.search(r"\.\.\s*now\b|\bnow\s*\.\.", code), file


def test_a_call_with_the_wrong_arguments_is_refused():
    from emp_core.queue.keys import Keys

    bound = load_script("retire").bound(Keys(), {"events_max": 1, "worker": "w"})
    with pytest.raises(TypeError, match="script retire takes session yet, not token, session"):
        bound.call({"token": "t", "session": "s"})
    with pytest.raises(
        TypeError, match="script retire takes prefix, events_max, worker, session, not prefix, session first"
    ):
        load_script("retire").bound(Keys(), {"session": "s"})


@pytest.mark.parametrize("name", SCRIPT_NAMES)
def test_a_script_has_no_function_that_it_does_not_call(name: str):
    """Redis makes every function of a script anew for every call."""
    source = load_script(name).source
    assert [
        one for one in re.findall(r"local function (\w+)", source) if len(re.findall(rf"\b{one}\b", source)) < 2
    ] == []

"""Payloads, and answers of services, as attrs classes: read strictly, with every mistake by its path and no value repeated.

A payload class is a plain attrs class. Its fields are JSON values: ``str``, ``int``, ``float``, ``bool``, ``None``, ``Any``,
``Literal``, enums, unions, lists, tuples, mappings with texts as names, other attrs classes, and `PayloadValue`. Nothing is
coerced: ``"5"`` is no number. Validators of attrs (``ge``, ``in_``, ``matches_re`` …) hold, and keys that the class does not
know are refused.

A field's ``metadata`` may say more: ``key``, its name in the payload when that is no Python name; ``description``; and
``rest``, for one field with a default that takes all other keys.
"""

import types
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from enum import Enum
from functools import lru_cache, partial
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import attrs
import cattrs
from cattrs.cols import homogenous_tuple_structure_factory, list_structure_factory
from cattrs.gen import make_dict_structure_fn, make_hetero_tuple_structure_fn, mapping_structure_factory, override

from emp_core.connectors.payload_fields import PayloadValue, key_of, limits_of, listed, rest_of, same_choice
from emp_core.connectors.payload_mistakes import Mistakes, Unfit, problems_in
from emp_core.connectors.payload_schema import payload_schema
from emp_core.errors import InvalidJob
from emp_core.jobs.requirements import is_finite, is_number, kind_of

__all__ = ["payload_reader", "read_answer", "read_payload"]

T = TypeVar("T")

_REST = "\0rest"
"""The key below which a class's other keys are handed to cattrs: no user's key, for what has this name is one of the others."""


def read_payload(kind: type[T], payload: Any) -> T:
    """A payload as its class.

    Raises:
        InvalidJob: it does not fit; lists every mistake with its path.
        PluginError: the class has a field that no JSON value can be read into.
    """
    try:
        return _read(payload_reader, kind, payload, "payload")
    except Unfit as unfit:
        raise InvalidJob(
            f"the payload cannot be used: {unfit}",
            hint="`emp services schema` shows what a service takes",
            details={"problems": list(unfit.problems)},
        ) from unfit


def read_answer(kind: type[T], answer: Any) -> T:
    """A service's answer as a class of the same sort. Keys that it does not know are left out: services learn to say more.

    Raises:
        Unfit: it does not fit.
        PluginError: as `read_payload` does.
    """
    return _read(_answer_reader, kind, answer, "answer")


def _read(reader: Callable[[Any], "_Hook"], kind: type[T], value: Any, root: str) -> T:
    read = reader(kind)
    try:
        made: T = read(value, kind)
    except Exception as error:  # validators are the author's code, and what they raise says what is wrong
        raise Unfit(problems_in(error, root)) from None  # what it comes from holds the values
    return made


@lru_cache(maxsize=256)
def payload_reader(kind: Any) -> "_Hook":
    """What reads a payload into this class.

    Raises:
        PluginError: no attrs class, or a field of it is of a type that payloads cannot have.
    """
    payload_schema(kind)
    return _strict.get_structure_hook(kind)


@lru_cache(maxsize=256)
def _answer_reader(kind: Any) -> "_Hook":
    payload_schema(kind)
    return _lenient.get_structure_hook(kind)


# -- values ------------------------------------------------------------------------------------------------------------


def _expected(what: str, value: Any) -> Mistakes:
    return Mistakes(("", f"expected {what}, not {kind_of(value)}"))


def _text(value: Any, _: Any) -> str:
    if not isinstance(value, str):
        raise _expected("a text", value)
    return value


def _whole(value: Any, _: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # JSON has one kind of number: 5.0 is 5
    raise Mistakes(("", "expected a whole number")) if is_number(value) else _expected("a whole number", value)


def _number(value: Any, _: Any) -> float:
    if not is_finite(value):
        raise Mistakes(("", "expected a finite number")) if is_number(value) else _expected("a number", value)
    return float(value)


def _truth(value: Any, _: Any) -> bool:
    if not isinstance(value, bool):
        raise _expected("true or false", value)
    return value


def _null(value: Any, _: Any) -> None:
    if value is not None:
        raise _expected("null", value)


def _literal(value: Any, kind: Any) -> Any:
    return _chosen(value, [(choice, choice) for choice in get_args(kind)])


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _scalar(read: "_Hook", value: Any, kind: Any) -> Any:
    return _enum(value, kind) if _is_enum(kind) else read(value, kind)


def _enum(value: Any, kind: type[Enum]) -> Any:
    return _chosen(value, [(member.value, member) for member in kind])


def _chosen(value: Any, choices: Sequence[tuple[Any, Any]]) -> Any:
    for choice, meant in choices:
        if same_choice(value, choice):
            return meant
    raise Mistakes(("", f"expected one of {listed([choice for choice, _ in choices])}"))


def _own_form(value: Any, kind: Any) -> Any:
    try:
        return kind.from_payload(value)
    except ValueError as error:
        raise Mistakes(("", str(error))) from error


# -- what holds values -------------------------------------------------------------------------------------------------

_Hook = Callable[[Any, Any], Any]
_LISTS = (list, tuple, Sequence, MutableSequence)
_OBJECTS = (dict, Mapping, MutableMapping)


def _list_factory(kind: Any, converter: cattrs.Converter) -> _Hook:
    return _only((list, tuple), "a list", list_structure_factory(kind, converter))


def _tuple_factory(kind: Any, converter: cattrs.Converter) -> _Hook:
    items = get_args(kind) or (Any, ...)
    if get_origin(kind) is not tuple or items[-1] is ...:
        # Sequence[X] as well: what a frozen payload holds does not change.
        whole = homogenous_tuple_structure_factory(tuple[items[0], ...], converter)  # type: ignore[valid-type]
        return _only((list, tuple), "a list", whole)
    read = make_hetero_tuple_structure_fn(kind, converter)

    def hook(value: Any, _: Any) -> Any:
        if isinstance(value, list | tuple) and len(value) != len(items):
            raise Mistakes(("", f"expected a list of {len(items)}"))
        return read(value, kind)

    return _only((list, tuple), "a list", hook)


def _mapping_factory(kind: Any, converter: cattrs.Converter) -> _Hook:
    return _only(Mapping, "an object", mapping_structure_factory(kind, converter, structure_to=dict))


def _only(types_taken: Any, what: str, read: _Hook) -> _Hook:
    def hook(value: Any, kind: Any) -> Any:
        if not isinstance(value, types_taken):
            raise _expected(what, value)
        return read(value, kind)

    return hook


def _union_factory(kind: Any, converter: cattrs.Converter) -> _Hook:
    members = [one for one in get_args(kind) if one is not types.NoneType]
    or_none = len(members) < len(get_args(kind))
    readers = [converter.get_structure_hook(member) for member in members]

    def hook(value: Any, _: Any) -> Any:
        if value is None and or_none:
            return None
        failures: list[Exception] = []
        for member, read in zip(members, readers, strict=True):
            try:
                return read(value, member)
            except Exception as error:  # told when no member takes it
                failures.append(error)
        # The mistakes of the one that was meant, if that is clear.
        meant = [one for member, one in zip(members, failures, strict=True) if _could_be(member, value)]
        if len(members) == 1 or len(meant) == 1:
            raise (meant or failures)[0]
        raise _of_union(members, value)

    return hook


_WORDS: Mapping[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    **dict.fromkeys(_LISTS, "a list"),
    **dict.fromkeys(_OBJECTS, "an object"),
}


def _of_union(members: Sequence[Any], value: Any) -> Mistakes:
    classes = [one.__name__ for one in members if attrs.has(one)]
    if classes and isinstance(value, Mapping):
        return Mistakes(("", f"fits none of {', '.join(classes)}"))
    return _expected(" or ".join(map(_called, members)), value)


def _called(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return listed(get_args(kind))
    name = getattr(kind, "__name__", str(kind))
    return f"an object ({name})" if attrs.has(kind) else _WORDS.get(get_origin(kind) or kind, name)


def _could_be(member: Any, value: Any) -> bool:
    """Whether a value was probably meant as this member of a union: an object by its Literals, a list by being one."""
    if not attrs.has(member):
        return isinstance(value, list | tuple) and get_origin(member) in _LISTS
    if not isinstance(value, Mapping):
        return False
    tags = [one for one in attrs.fields(member) if get_origin(one.type) is Literal and key_of(one) in value]
    return all(any(same_choice(value[key_of(one)], choice) for choice in get_args(one.type)) for one in tags)


def _class_factory(kind: Any, converter: cattrs.Converter) -> _Hook:
    attrs.resolve_types(kind)
    fields = [one for one in attrs.fields(kind) if one.init]
    rest = rest_of(kind)
    known = frozenset(key_of(one) for one in fields if one is not rest)
    overrides: dict[str, Any] = {one.name: override(rename=_REST if one is rest else key_of(one)) for one in fields}
    for one in fields:
        if limits := limits_of(one.validator):
            overrides[one.name] = override(rename=overrides[one.name].rename, struct_hook=_limited(converter, limits))
    read: _Hook = make_dict_structure_fn(
        kind,
        converter,
        _cattrs_forbid_extra_keys=rest is None and converter.forbid_extra_keys,
        _cattrs_use_linecache=False,
        **overrides,
    )
    if rest is None:
        return _only(Mapping, "an object", read)

    def with_rest(value: Mapping[str, Any], _: Any) -> Any:
        others = {name: inner for name, inner in value.items() if name not in known}
        return read({**{name: value[name] for name in known & value.keys()}, _REST: others}, kind)

    return _only(Mapping, "an object", with_rest)


def _limited(converter: cattrs.Converter, limits: Sequence[Any]) -> _Hook:
    def hook(value: Any, kind: Any) -> Any:
        made = converter.structure(value, kind)
        if found := [(path, f"expected {text}") for limit in limits for path, text in limit.mistakes(made)]:
            raise Mistakes(*found)
        return made

    return hook


def _is(*kinds: Any) -> Callable[[Any], bool]:
    return lambda kind: kind in kinds or get_origin(kind) in kinds


def _made_converter(*, forbid_extra_keys: bool) -> cattrs.Converter:
    made = cattrs.Converter(detailed_validation=True, forbid_extra_keys=forbid_extra_keys)
    # The last one that fits counts.
    for kind, hook in ((str, _text), (int, _whole), (float, _number), (bool, _truth), (types.NoneType, _null)):
        # Enums that are texts or numbers, too, come here: cattrs asks for base classes first.
        made.register_structure_hook(kind, partial(_scalar, hook))
    made.register_structure_hook_factory(attrs.has, _class_factory)
    made.register_structure_hook_factory(_is(list, MutableSequence), _list_factory)
    made.register_structure_hook_factory(_is(tuple, Sequence), _tuple_factory)
    made.register_structure_hook_factory(_is(dict, Mapping, MutableMapping), _mapping_factory)
    made.register_structure_hook_factory(_is(Union, types.UnionType), _union_factory)
    made.register_structure_hook_func(_is(Literal), _literal)
    made.register_structure_hook_func(_is_enum, _enum)
    made.register_structure_hook_func(lambda kind: isinstance(kind, type) and isinstance(kind, PayloadValue), _own_form)
    return made


_strict = _made_converter(forbid_extra_keys=True)
_lenient = _made_converter(forbid_extra_keys=False)

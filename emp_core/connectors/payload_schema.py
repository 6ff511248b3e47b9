"""JSON Schema (draft 2020-12) of payload classes.

It accepts what `read_payload` accepts; only validators of the author's own are not in it.
"""

import inspect
import re
import types
from collections.abc import Iterator, Mapping, MutableMapping, MutableSequence, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import attrs

from emp_core.connectors.payload_fields import Limit, PayloadValue, key_of, limits_of, rest_of
from emp_core.errors import PluginError

__all__ = ["DIALECT", "payload_schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
"""What schemas written here say that they are."""

_SCALARS: Mapping[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    types.NoneType: "null",
}
_LENGTHS: Mapping[str, str] = {"string": "Length", "array": "Items", "object": "Properties"}
_LISTS = (list, tuple, Sequence, MutableSequence)
_OBJECTS = (dict, Mapping, MutableMapping)
_DOCUMENTED = re.compile(r"^    (\w+): (.+(?:\n {6,}.+)*)", re.MULTILINE)


def payload_schema(*kinds: type) -> dict[str, Any]:
    """The JSON Schema of payload classes: what fits one of them.

    Descriptions come from a field's ``metadata["description"]``, else from the ``Attributes:`` of the class's docstring.

    Raises:
        PluginError: no attrs class, or a field of it is of a type that payloads cannot have.
    """
    classes = _Classes()
    references = [_reference(classes, kind) for kind in kinds]
    if len(references) > 1:
        return {"$schema": DIALECT, "anyOf": references, "$defs": classes.definitions}
    [top] = references
    name = top["$ref"].rsplit("/", 1)[-1]
    if top["$ref"] not in _references(classes.definitions):
        top = classes.definitions.pop(name)
    return {"$schema": DIALECT, **top, **({"$defs": classes.definitions} if classes.definitions else {})}


def _reference(classes: "_Classes", kind: type) -> dict[str, Any]:
    given: Any = kind  # what plugins pass is not always what the annotations say
    if not (isinstance(given, type) and attrs.has(given)):
        raise PluginError(f"the payload class {kind!r} is no attrs class", hint="decorate it with attrs.frozen")
    try:
        return classes.schema(kind)
    except (NameError, _Unreadable) as error:
        raise PluginError(
            f"the payload class {kind.__qualname__} cannot be used: {error}",
            hint="its fields may be texts, numbers, truth values, lists, objects by text, enums, Literals and attrs classes",
        ) from error


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "$ref":
                yield inner
            else:
                yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


class _Unreadable(Exception):
    """A type that no JSON value is read into."""


class _Classes:
    """Writes schemas, and keeps those of classes by name, so that a class may hold itself."""

    def __init__(self) -> None:
        self.definitions: dict[str, Any] = {}
        self._names: dict[type, str] = {}

    def schema(self, kind: Any) -> dict[str, Any]:
        """The schema of a type."""
        origin, arguments = get_origin(kind), get_args(kind)
        if kind is Any:
            return {}
        if kind in _SCALARS:
            return {"type": _SCALARS[kind]}
        if isinstance(kind, type) and isinstance(kind, PayloadValue):
            return self._defined(kind, lambda: dict(kind.payload_schema))
        if isinstance(kind, type) and attrs.has(kind):
            return self._defined(kind, lambda: self._class(kind))
        if isinstance(kind, type) and issubclass(kind, Enum):
            return {"enum": [member.value for member in kind]}
        if origin is Literal:
            return {"enum": list(arguments)}
        if origin in (Union, types.UnionType):
            return {"anyOf": [self.schema(member) for member in arguments]}
        if kind in _LISTS or origin in _LISTS:
            return self._list(origin, arguments)
        if kind in _OBJECTS or origin in _OBJECTS:
            return self._object(kind, arguments)
        if origin is Annotated:
            return self.schema(arguments[0])
        if (meant := getattr(kind, "__supertype__", None)) is not None:
            return self.schema(meant)
        raise _Unreadable(f"{kind} has no form in JSON that is read here")

    def _defined(self, kind: type, write: Any) -> dict[str, Any]:
        if kind not in self._names:
            same = sum(1 for other in self._names if other.__name__ == kind.__name__)
            self._names[kind] = f"{kind.__name__}{same + 1}" if same else kind.__name__
            self.definitions[self._names[kind]] = write()
        return {"$ref": f"#/$defs/{self._names[kind]}"}

    def _list(self, origin: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        if origin is tuple and arguments[-1:] != (...,):
            size = len(arguments)
            items = [self.schema(one) for one in arguments]
            return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}
        items_of = self.schema(arguments[0]) if arguments else {}
        return {"type": "array", **({"items": items_of} if items_of else {})}

    def _object(self, kind: Any, arguments: tuple[Any, ...]) -> dict[str, Any]:
        name, value = arguments or (str, Any)
        if name is not str:
            raise _Unreadable(f"{kind}: names in JSON objects are texts")
        inner = self.schema(value)
        return {"type": "object", **({"additionalProperties": inner} if inner else {})}

    def _class(self, kind: type) -> dict[str, Any]:
        attrs.resolve_types(kind)
        rest = rest_of(kind)
        documented = _documented(kind)
        named = [one for one in attrs.fields(kind) if one.init and one is not rest]
        required = [key_of(one) for one in named if one.default is attrs.NOTHING]
        others = self.schema(rest.type).get("additionalProperties", True) if rest is not None else False
        if rest is not None and rest.default is attrs.NOTHING:
            raise _Unreadable(f"{kind.__qualname__}.{rest.name} takes the other keys, and needs a default")
        return {
            "title": kind.__name__,
            **({"description": about} if (about := _first_words(kind.__doc__)) else {}),
            "type": "object",
            "properties": {key_of(one): self._field(one, documented) for one in named},
            **({"required": required} if required else {}),
            "additionalProperties": others,
        }

    def _field(self, attribute: "attrs.Attribute[Any]", documented: Mapping[str, str]) -> dict[str, Any]:
        schema = self.schema(Any if attribute.type is None else attribute.type)
        for limit in limits_of(attribute.validator):
            target = schema.setdefault("items", {}) if limit.items else schema
            target.update(_keywords(limit, self._types(target)))
        if about := attribute.metadata.get("description") or documented.get(attribute.name):
            schema["description"] = str(about)
        default = _default(attribute)
        return schema if default is _NOTHING else {**schema, "default": default}

    def _types(self, schema: Mapping[str, Any]) -> set[str]:
        """The JSON types that a schema lets through, as far as lengths need them."""
        return {schema.get("type", "")} | {one.get("type", "") for one in schema.get("anyOf", ())}


def _keywords(limit: Limit, kinds: set[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for keyword, value in limit.schema.items():
        if keyword in ("min", "max"):
            found |= {f"{keyword}{name}": value for kind, name in _LENGTHS.items() if kind in kinds}
        elif keyword == "enum":
            found["enum"] = [*(_as_json(one) for one in value), *([None] if limit.or_none else [])]
        else:
            found[keyword] = value
    return found


_NOTHING = object()


def _default(attribute: "attrs.Attribute[Any]") -> Any:
    default: Any = attribute.default
    if default is attrs.NOTHING:
        return _NOTHING
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, whatever the stubs say
        return _NOTHING if default.takes_self else _as_json(default.factory())
    return _as_json(default)


def _as_json(value: Any) -> Any:
    """A default as it would stand in a payload."""
    match value:
        case Enum():
            return value.value
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_as_json(one) for one in value]
        case Mapping():
            return {name: _as_json(inner) for name, inner in value.items()}
    if not attrs.has(type(value)):
        return _NOTHING
    rest = rest_of(type(value))
    own = {key_of(one): _as_json(getattr(value, one.name)) for one in attrs.fields(type(value)) if one is not rest}
    return {name: inner for name, inner in own.items() if inner is not _NOTHING}


def _first_words(text: str | None) -> str:
    """The first paragraph of a docstring, in one line."""
    return " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())


def _documented(kind: type) -> dict[str, str]:
    """What the docstrings say of each field under ``Attributes:``."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        text = inspect.cleandoc(one.__doc__ or "").partition("Attributes:\n")[2]
        found |= {name: " ".join(about.split()) for name, about in _DOCUMENTED.findall(text)}
    return found

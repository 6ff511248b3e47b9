"""Loading the Lua scripts. A script's header is the one place that says what goes in and what comes out.

The lines of a header begin with ``---``. The first says what the script does; then ``transitions:`` (``from>to``),
``include:`` (files of ``lua/include``), ``keys:`` (names from `FIXED_KEYS`, which the body has as ``NAME_key``), ``argv:``
(arguments, which the body has under their names), ``rest:`` (what follows them; the body has the index of the first one
as ``rest``), ``returns:`` and ``codes:``. Arguments of what is included come along, and those keys of it that are used.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from attrs import field, frozen
from redis.exceptions import NoScriptError

from emp_core.queue.client import Client, NotReady
from emp_core.queue.keys import FIXED_KEYS, Keys
from emp_core.queue.sending import PackedHead, packed

__all__ = ["SCRIPT_NAMES", "BoundScript", "Script", "load_script"]

SCRIPT_NAMES = (
    "submit",
    "claim",
    "finish",
    "renew",
    "cancel",
    "retry",
    "lanes_set",
    "retire",
    "drain",
    "sweep",
    "note",
    "mark",
    "unserved",
    "reprioritize",
    "audit",
    "recount",
    "gap",
    "sample",
)

_LUA = resources.files("emp_core.queue") / "lua"


@frozen
class Header:
    """What a script says of itself."""

    purpose: str
    fields: Mapping[str, str]

    def words(self, name: str) -> tuple[str, ...]:
        """The words of one line of the header."""
        return tuple(self.fields.get(name, "").split())


@frozen
class Script:
    """A script, ready to be bound to keys and called.

    Attributes:
        keys: names of the fixed keys that it takes, in order.
        argv: names of the arguments that it takes, in order.
    """

    name: str
    header: Header
    keys: tuple[str, ...]
    argv: tuple[str, ...]
    source: str = field(repr=False)
    sha: str

    def bound(self, keys: Keys, constants: Mapping[str, Any] | None = None) -> "BoundScript":
        """The script with its keys, and with the first of its arguments, for calls that share them. ``prefix`` is filled in.

        Raises:
            TypeError: its header begins with other arguments.
        """
        given = {"prefix": keys.namespace} if "prefix" in self.argv else {}
        given |= constants or {}
        first, others = self.argv[: len(given)], self.argv[len(given) :]
        if given.keys() != set(first):
            raise TypeError(f"script {self.name} takes {', '.join(self.argv)}, not {', '.join(given)} first")
        fixed = [keys.fixed(name) for name in self.keys]
        return BoundScript(
            self, PackedHead("EVALSHA", self.sha, len(fixed), *fixed, *(given[name] for name in first)), others
        )


@frozen
class BoundScript:
    """A script with its keys. What its calls have in common is packed once: half of what a call takes after a sleep.

    Attributes:
        argv: names of the arguments that it takes yet, in order.
    """

    script: Script
    head: PackedHead
    argv: tuple[str, ...]

    async def __call__(
        self, client: Client, arguments: Mapping[str, Any], rest: Sequence[Any] = (), *, patience_s: float = 0.0
    ) -> Any:
        """Run it. ``arguments`` are by name.

        Args:
            patience_s: how long it may take to come back after it was cancelled on its way.
        """
        [reply] = await self.together(client, [(arguments, rest)], patience_s=patience_s)
        return reply

    async def together(
        self,
        client: Client,
        calls: Sequence[tuple[Mapping[str, Any], Sequence[Any]]],
        *,
        replicas: int = 0,
        limit_ms: int = 1000,
        patience_s: float = 0.0,
    ) -> list[Any]:
        """Run it several times in one round trip.

        Args:
            calls: arguments and rest of each.
            replicas: how many of them must have what was written, and everything before it, within ``limit_ms``.

        Raises:
            NotReady: they do not have it yet; what was written stays written here.
        """
        commands = [self.call(arguments, rest) for arguments, rest in calls]
        if replicas:
            # On the same connection: it waits for what this connection has written.
            commands.append(packed("WAIT", replicas, limit_ms))
        try:
            replies = await client.calls(commands, patience_s)
        except NoScriptError:
            # Redis was restarted or flushed its scripts.
            await client.script_load(self.script.source)
            replies = await client.calls(commands, patience_s)
        if replicas and (copies := int(replies.pop())) < replicas:
            raise NotReady(f"{copies} of {replicas} replicas have what was written")
        return replies

    def call(self, arguments: Mapping[str, Any], rest: Sequence[Any] = ()) -> bytes:
        """The command that runs it, packed. Raises TypeError: its header has other arguments."""
        if len(arguments) != len(self.argv):
            raise TypeError(f"script {self.script.name} takes {', '.join(self.argv)} yet, not {', '.join(arguments)}")
        return self.head.packed(*map(arguments.__getitem__, self.argv), *rest)


@cache
def load_script(name: str) -> Script:
    """Read a script and everything that it includes.

    Raises:
        ValueError: a header names a key that does not exist.
    """
    header, body = _read(_LUA / f"{name}.lua")
    included = [_read(_LUA / "include" / f"{part}.lua") for part in header.words("include")]
    headers = [header, *(one for one, _ in included)]
    argv = _union(one.words("argv") for one in headers)
    code = _without_unused("\n".join([*(text for _, text in included), body]))
    declared = _union(one.words("keys") for one in headers)
    if unknown := [key for key in declared if key not in FIXED_KEYS]:
        raise ValueError(f"{name}.lua: unknown keys {', '.join(unknown)}")
    keys = tuple(key for key in declared if re.search(rf"\b{key}_key\b", code))
    for i, key in enumerate(keys, 1):
        # Where they are used: a local that functions share costs more, in every call, than a few looks into a table.
        code = re.sub(rf"\b{key}_key\b", f"KEYS[{i}]", code)
    # So are numbers that have a name.
    for constant in _CONSTANT.finditer(code):
        code = re.sub(rf"\b{constant[1]}\b", constant[2], code.replace(constant[0], ""))
    prelude = [f"local {', '.join(argv)} = unpack(ARGV, 1, {len(argv)})", f"local rest = {len(argv) + 1}"]
    # In a function of its own: Lua finds the names around a function sooner than those beside it.
    source = "\n".join([*prelude, "return (function()", code, "end)()"])
    return Script(name, header, keys, argv, source, hashlib.sha1(source.encode()).hexdigest())  # noqa: S324 - Redis's own


def _read(file: Any) -> tuple[Header, str]:
    text = file.read_text(encoding="utf-8")
    comments = [line[3:].strip() for line in text.splitlines() if line.startswith("---")]
    fields: dict[str, str] = {}
    purpose: list[str] = []
    for line in comments:
        name, colon, value = line.partition(":")
        if colon and name in _FIELDS:
            fields[name] = value.strip()
        else:
            purpose.append(line)
    return Header(" ".join(purpose), fields), text


def _without_unused(code: str) -> str:
    """Leave out the functions that nothing after them names: Redis makes every function anew for every call."""
    for function in reversed(list(_FUNCTION.finditer(code))):
        name, following = function[1], code[function.end() :]
        if not re.search(rf"\b{name}\b", following):
            code = code[: function.start()] + following
    return code


_FUNCTION = re.compile(r"^local function (\w+)\(.*?^end$", re.MULTILINE | re.DOTALL)
_CONSTANT = re.compile(r"^local ([A-Z_]+) = ([\d.]+)$\n", re.MULTILINE)
_FIELDS = frozenset({"transitions", "include", "keys", "argv", "rest", "returns", "codes"})


def _union(lists: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for words in lists for word in words))

"""`PathMap`: the same files are called one thing here and another on the server.

``U:/`` here may be ``/home/me/ComfyUI/`` there. A value is translated if it begins with the whole folder: ``U:/in/a.exr`` is
``/home/me/ComfyUI/in/a.exr``, ``U:/in`` of ``U:/input`` is nothing. Windows' paths are compared without regard to case, and
both slashes count as one.
"""

import re
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

__all__ = ["PathMap"]

_DRIVE = re.compile(r"[A-Za-z]:($|[\\/])")
_LONGEST = 4096
_INPUT = "$input"


@frozen
class _Folder:
    """A folder, to be compared with."""

    text: str
    windows: bool

    @classmethod
    def of(cls, text: str) -> "_Folder":
        windows = bool(_DRIVE.match(text)) or "\\" in text
        return cls(text.rstrip("/\\" if windows else "/"), windows)

    def rest(self, path: str) -> str | None:
        """What follows after this folder in a path, with slashes; None: the path is not in it."""
        if not path:
            return None
        head, tail = path[: len(self.text)], path[len(self.text) :]
        separators = "/\\" if self.windows else "/"
        if self._compared(head) != self._compared(self.text) or (tail and tail[0] not in separators):
            return None
        rest = tail.replace("\\", "/") if self.windows else tail
        parts = rest.split("/")
        # A name that begins or ends with a space is none on Windows; in a sentence after "U:/" it is usual.
        return None if ".." in parts or any(part != part.strip() for part in parts) else rest

    def _compared(self, text: str) -> str:
        return text.replace("\\", "/").casefold() if self.windows else text

    def join(self, rest: str) -> str:
        """A path in this folder."""
        return self.text + (rest.replace("/", "\\") if "\\" in self.text else rest) or "/"


@frozen
class PathMap:
    """Translates paths between this machine and a server.

    Args:
        local: the folder as this machine calls it.
        remote: as the server calls it. Nothing is translated while either is empty.
    """

    local: str = ""
    remote: str = ""
    _here: _Folder = field(init=False, repr=False)
    _there: _Folder = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_here", _Folder.of(self.local.strip()))
        object.__setattr__(self, "_there", _Folder.of(self.remote.strip()))

    @property
    def translates(self) -> bool:
        """Whether there is anything to translate."""
        return bool(self.local.strip() and self.remote.strip()) and self._here != self._there

    def to_server(self, path: str) -> str:
        """A path of this machine as the server calls it; other texts as they are."""
        return _moved(path, self._here, self._there) if self.translates else path

    def to_local(self, path: str) -> str:
        """A path of the server as this machine calls it; other texts as they are."""
        return _moved(path, self._there, self._here) if self.translates else path

    def graph_to_server(self, graph: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """A workflow whose nodes' inputs name files as the server calls them. Nothing else of it is touched."""
        return {
            node_id: {**node, "inputs": _each_text(node["inputs"], self.to_server)} for node_id, node in graph.items()
        }

    def to_local_everywhere(self, value: Any) -> Any:
        """A value of the server's, whatever is in it, with its paths as this machine calls them."""
        return _each_text(value, self.to_local)


def _moved(text: str, source: _Folder, target: _Folder) -> str:
    if len(text) > _LONGEST or not text.isprintable():
        return text  # no path: a prompt of several lines, a picture in base64
    rest = source.rest(text)
    return text if rest is None else target.join(rest)


def _each_text(value: Any, change: Any) -> Any:
    match value:
        case str():
            return change(value)
        case Mapping() if _INPUT in value:
            return value  # a file that is fetched here and handed over
        case Mapping():
            return {key: _each_text(inner, change) for key, inner in value.items()}
        case list() | tuple():
            return [_each_text(inner, change) for inner in value]
    return value

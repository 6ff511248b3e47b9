"""How node classes take files from the server's input folder: what kinds, and where the files have to lie."""

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import field, frozen

from emp_comfyui.client import ComfyUIClient
from emp_comfyui.held_files import OURS
from emp_comfyui.node_info import choices_of, options_of
from emp_core.errors import InputError
from emp_core.inputs.files import Input
from emp_core.inputs.media_types import is_accepted

__all__ = ["Loader", "Way", "loader_of"]


@frozen
class Way:
    """How an input of a node takes a file.

    Attributes:
        subfolder: where it has to lie below the input folder.
        prefix: what its name begins with, where others' files lie beside it.
        accept: the types that it can load.
    """

    subfolder: str = OURS
    prefix: str = ""
    accept: Sequence[str] = ("*/*",)

    def check(self, file: Input, class_type: str) -> None:
        """See that the file can be loaded.

        Raises:
            InputError: it is of another type.
        """
        if not is_accepted(file.media_type, self.accept):
            raise InputError(
                f"{file.name} is {file.media_type}, and {class_type} loads {' or '.join(self.accept)}",
                details={"reason": "media_type", "media_type": file.media_type},
            )


_IMAGE = Way(accept=("image/*",))
_SOUND = Way(accept=("audio/*", "video/*"))
_VIDEO = Way(accept=("video/*", "image/*"))
_SOLID = Way(subfolder="3d", prefix=f"{OURS}-")
"""Nodes that load 3D list this folder alone, older ones without what lies below it."""
_LISTED = Way(subfolder="", prefix=f"{OURS}-")
"""A list without an upload button: most nodes list the top folder, and take what is in the list alone."""

_STOCK: Mapping[str, Mapping[str, Way]] = {
    "LoadImage": {"image": _IMAGE},
    "LoadImageMask": {"image": _IMAGE},
    "LoadAudio": {"audio": _SOUND},
    "LoadVideo": {"file": _VIDEO},
    "Load3D": {"model_file": _SOLID},
    "Load3DAnimation": {"model_file": _SOLID},
}
_BY_BUTTON = {"image_upload": _IMAGE, "audio_upload": _SOUND, "video_upload": _VIDEO}
"""Options that give an input an upload button in the editor. It uploads into subfolders, too, so these inputs take them."""


@frozen
class Loader:
    """A node class that loads files.

    Attributes:
        told: what ``/object_info`` says of it; None: it was not asked, or is not known.
    """

    ways: Mapping[str, Way] = field(factory=dict)
    told: Mapping[str, Any] | None = None

    def has(self, name: str) -> bool:
        """Whether the class has an input of this name, as far as is known."""
        return options_of(self.told, name) is not None

    def way_of(self, name: str) -> Way:
        """How an input takes a file."""
        if name in self.ways:
            return self.ways[name]
        options = options_of(self.told, name) or {}
        choices = choices_of(self.told, name)
        if choices is not None and any(choice.startswith("3d/") for choice in choices):
            return _SOLID
        button = next((way for option, way in _BY_BUTTON.items() if options.get(option)), None)
        if button is not None:
            return button
        has_button = any(option.endswith("_upload") and value for option, value in options.items())
        return Way() if choices is None or has_button else _LISTED


async def loader_of(class_type: str, client: ComfyUIClient) -> Loader:
    """How a class takes files: those of ComfyUI itself are known, others are asked for."""
    if class_type in _STOCK:
        return Loader(_STOCK[class_type])
    return Loader(told=await client.node_class(class_type))

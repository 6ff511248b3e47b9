"""Node classes of the fake server: how they are declared, what they are given and what they give back.

A class of your own takes a few lines::

    async def run(call: NodeCall) -> tuple[object, ...]:
        for step in range(3):
            await call.step(step + 1, 3)
        return (call["text"].upper(),)

    server.nodes.add(NodeClass("Shout", run, inputs={"text": Input("STRING")}, outputs=("STRING",)))
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import attrs

from emp_comfyui.testing.folders import Folders, OutsideFolder
from emp_comfyui.testing.pictures import Picture


class Site(Protocol):
    """The part of the server that nodes see."""

    @property
    def folders(self) -> Folders:
        """Input, output and temp files."""
        ...

    @property
    def models(self) -> Mapping[str, Sequence[str]]:
        """Names of the pretended model files by folder, such as ``checkpoints``."""
        ...


@attrs.frozen
class Input:
    """One input as ``/object_info`` describes it: a type name or a list of choices, and options such as ``min``.

    ``choices`` takes the place of the list where it depends on the server (uploaded files, model files).
    """

    type: str | Sequence[str]
    options: Mapping[str, Any] | None = None
    choices: Callable[[Site], list[str]] | None = None

    def allowed(self, site: Site) -> list[str] | None:
        """The values to choose from; None if any value of the type will do."""
        if self.choices is not None:
            return self.choices(site)
        return None if isinstance(self.type, str) else list(self.type)

    def described(self, site: Site) -> list[Any]:
        """The input as it stands in ``/object_info``."""
        kind: str | list[str] = self.type if isinstance(self.type, str) else list(self.type)
        if self.choices is not None:
            kind = self.choices(site)
        return [kind] if self.options is None else [kind, dict(self.options)]


@attrs.frozen
class Blocked:
    """A value that stops the nodes behind it, as ComfyUI's ExecutionBlocker does. ``message`` None blocks silently."""

    message: str | None = None


@attrs.frozen
class Result:
    """What a node gives back when it is more than its outputs.

    Attributes:
        outputs: One value per declared output.
        ui: What goes into ``executed`` and the history; None or an empty dict: nothing does.
        expand: A graph that takes the node's place. Its node ids are local; links in ``outputs`` to its nodes are
            ``["local id", slot]``.
    """

    outputs: tuple[Any, ...] = ()
    ui: Mapping[str, Any] | None = None
    expand: Mapping[str, Mapping[str, Any]] | None = None


class NodeFailure(Exception):
    """A failure of a node that is reported under the name of an exception this process need not have."""

    def __init__(self, message: str, exception_type: str = "RuntimeError") -> None:
        """``exception_type`` is what clients read, such as ``torch.OutOfMemoryError``."""
        super().__init__(message)
        self.exception_type = exception_type


def out_of_memory(message: str = "CUDA out of memory") -> NodeFailure:
    """The failure of a GPU that is full, worded as clients know it."""
    advice = (
        "This error means you ran out of memory on your GPU.\n\n"
        "TIPS: If the workflow worked before you might have accidentally set the batch_size to a large number."
    )
    return NodeFailure(f"{message}\n{advice}", "torch.OutOfMemoryError")


class NodeReporter(Protocol):
    """What a running node can tell the clients; the executor implements it."""

    async def step(
        self, node_id: str, value: float, maximum: float, preview: tuple[bytes, str] | None, seconds: float
    ) -> None:
        """Let the time of a step pass, then report progress."""

    async def sleep(self, node_id: str, seconds: float) -> None:
        """Let time pass without a report."""

    def text(self, node_id: str, message: str, *, to_everybody: bool) -> None:
        """Send progress text."""

    def send(self, kind: str, data: Mapping[str, Any], *, to_everybody: bool) -> None:
        """Send a text frame of any type."""


@attrs.frozen
class NodeCall:
    """One run of a node: its inputs, and what it can do meanwhile."""

    node_id: str
    class_name: str
    prompt_id: str
    inputs: Mapping[str, Any]
    prompt: Mapping[str, Any] = attrs.field(repr=False)
    extra_data: Mapping[str, Any] = attrs.field(repr=False)
    site: Site = attrs.field(repr=False)
    _reporter: NodeReporter = attrs.field(repr=False)

    def __getitem__(self, name: str) -> Any:
        """The value of an input."""
        return self.inputs[name]

    async def step(
        self, value: float, maximum: float, preview: tuple[bytes, str] | None = None, seconds: float = 0.0
    ) -> None:
        """Finish a step: let ``seconds`` of the server's time pass, then report progress.

        Here an interrupt takes effect. ``preview`` is an image and its type (``image/jpeg`` or ``image/png``).
        """
        await self._reporter.step(self.node_id, value, maximum, preview, seconds)

    async def sleep(self, seconds: float) -> None:
        """Let ``seconds`` of the server's time pass and report nothing."""
        await self._reporter.sleep(self.node_id, seconds)

    def progress_text(self, message: str, *, to_everybody: bool = True) -> None:
        """Send progress text (binary event type 3); stock nodes send it to everybody."""
        self._reporter.text(self.node_id, message, to_everybody=to_everybody)

    def send(self, kind: str, data: Mapping[str, Any], *, to_everybody: bool = False) -> None:
        """Send a text frame of a type of your own, as custom nodes do."""
        self._reporter.send(kind, data, to_everybody=to_everybody)

    def save(self, prefix: str, extension: str, data: bytes, *, kind: str = "output") -> dict[str, str]:
        """Write a file under the next free number; returns its reference for ``ui``.

        Raises:
            NodeFailure: ``prefix`` leads out of the folder.
        """
        try:
            path, reference = self.site.folders.next_file(kind, prefix, extension)
        except OutsideFolder as error:
            raise NodeFailure(str(error), "Exception") from error
        path.write_bytes(data)
        return reference

    def temp_prefix(self) -> str:
        """The prefix of this node's files in ``temp``; its random part stays the same until the server restarts."""
        owner = f"{self.class_name} {self.node_id}"
        return f"ComfyUI_temp_{self.site.folders.temp_tag(owner)}"

    def png_texts(self) -> dict[str, str]:
        """The text chunks that a saved PNG carries: the prompt, and the workflow if one was sent."""
        return self.site.folders.png_texts(self.prompt, self.extra_data)


RunNode = Callable[[NodeCall], Awaitable[Result | tuple[Any, ...] | None]]


@attrs.frozen
class NodeClass:
    """A node class.

    Attributes:
        name: The ``class_type``.
        run: What it does. Returns the outputs as a tuple, a :class:`Result`, or None.
        inputs: Required inputs by name.
        optional: Optional inputs by name.
        outputs: Types of the outputs.
        output_node: True for nodes that a prompt is run for (SaveImage and its like).
        lists: Which outputs are lists (the value is a sequence, the next node runs once for each); empty for none.
        asynchronous: The node awaits: others may run meanwhile.
        validate: Own validation: reasons by input name, empty if all is well. The inputs in ``validates`` are then not
            checked against ``min``, ``max`` and choices.
        fingerprint: Something that changes when the node must not be taken from the cache.
        never_cached: It runs every time.
        more: Further keys for ``/object_info``.
    """

    name: str
    run: RunNode = attrs.field(repr=False)
    inputs: Mapping[str, Input] = attrs.field(factory=dict, repr=False)
    optional: Mapping[str, Input] = attrs.field(factory=dict, repr=False)
    outputs: tuple[str, ...] = ()
    output_node: bool = False
    lists: tuple[bool, ...] = ()
    asynchronous: bool = False
    validate: Callable[[Mapping[str, Any], Site], Mapping[str, str]] | None = attrs.field(default=None, repr=False)
    validates: frozenset[str] = frozenset()
    fingerprint: Callable[[Mapping[str, Any], Site], str] | None = attrs.field(default=None, repr=False)
    never_cached: bool = False
    more: Mapping[str, Any] = attrs.field(factory=dict, repr=False)

    def input_named(self, name: str) -> Input | None:
        """The declared input of that name."""
        return self.inputs.get(name) or self.optional.get(name)

    def is_list(self, slot: int) -> bool:
        """Whether the output in ``slot`` is a list."""
        return slot < len(self.lists) and self.lists[slot]

    def object_info(self, site: Site) -> dict[str, Any]:
        """The class as ``/object_info`` describes it."""
        declared: dict[str, Any] = {"required": {name: each.described(site) for name, each in self.inputs.items()}}
        if self.optional:
            declared["optional"] = {name: each.described(site) for name, each in self.optional.items()}
        more = dict(self.more)
        hidden = more.pop("hidden", None)
        if hidden is not None:
            declared["hidden"] = hidden
        return {
            "input": declared,
            "input_order": {kind: list(each) for kind, each in declared.items()},
            "output": list(self.outputs),
            "output_is_list": [self.is_list(slot) for slot in range(len(self.outputs))],
            "output_name": list(self.outputs),
            "name": self.name,
            "display_name": self.name,
            "description": "",
            "python_module": "nodes",
            "category": "testing",
            "output_node": self.output_node,
            **more,
        }


class NodeRegistry:
    """The node classes that a server knows."""

    def __init__(self, classes: Sequence[NodeClass] = ()) -> None:
        """Start with ``classes``."""
        self._classes = {each.name: each for each in classes}

    def add(self, node_class: NodeClass) -> None:
        """Add a class, or replace the one of that name."""
        self._classes[node_class.name] = node_class

    def remove(self, name: str) -> None:
        """Take a class away, as if its custom node were not installed."""
        self._classes.pop(name, None)

    def get(self, name: object) -> NodeClass | None:
        """The class of that name."""
        return self._classes.get(name) if isinstance(name, str) else None

    def __iter__(self) -> Iterator[NodeClass]:
        """All classes."""
        return iter(self._classes.values())


_PICTURES = frozenset((".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"))

Batch = tuple[Picture, ...]
"""The value of an IMAGE."""


def image_files(site: Site) -> list[str]:
    """Names of the pictures in the top input folder: the choices of LoadImage."""
    return sorted(path.name for path in site.folders.path("input").iterdir() if path.suffix.lower() in _PICTURES)

"""What a ComfyUI server of a given version can do, as far as a client notices.

The first releases: own ``prompt_id``, feature flags, preview metadata and ``progress_state`` 0.3.45; partial execution
0.3.48; interrupt by id 0.3.57; progress text 0.3.34; ``no_prompt`` with a type 0.3.28; ``/api/jobs`` about 0.6; cancel by id
about 0.26.
"""

import attrs

DEFAULT_VERSION = "0.3.64"


@attrs.frozen
class Capabilities:
    """What the pretended version can do."""

    version: str
    own_prompt_id: bool
    feature_flags: bool
    progress_state: bool
    partial_execution: bool
    interrupt_by_id: bool
    progress_text: bool
    typed_no_prompt: bool
    jobs: bool
    cancel_by_id: bool


def capabilities_of(version: str) -> Capabilities:
    """The capabilities of a version such as ``0.3.64``.

    Raises:
        ValueError: the version is not numbers with dots between them.
    """
    parts = version.split(".")
    if not all(part.isdigit() for part in parts):
        raise ValueError(f"{version!r} is no ComfyUI version: write it like {DEFAULT_VERSION}")
    number = tuple(int(part) for part in parts)
    return Capabilities(
        version=version,
        own_prompt_id=number >= (0, 3, 45),
        feature_flags=number >= (0, 3, 45),
        progress_state=number >= (0, 3, 45),
        partial_execution=number >= (0, 3, 48),
        interrupt_by_id=number >= (0, 3, 57),
        progress_text=number >= (0, 3, 34),
        typed_no_prompt=number >= (0, 3, 28),
        jobs=number >= (0, 6),
        cancel_by_id=number >= (0, 26),
    )

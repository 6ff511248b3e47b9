"""For tests: a fake ComfyUI server, and a server that replays what a real one said.

Needs the extra ``emp-comfyui[testing]``. The fake runs prompts by itself and can be made to fail::

    async with FakeComfyUI(version="0.3.64") as server:
        hold = server.hold("KSampler", at_step=2)      # stop there
        ...                                            # point your client at server.url
        await hold.reached()
        await server.kill()                            # as kill -9 would
        await server.restart()                         # same port, same output files
        server.faults = Faults(history_late_by=3, drop_frames={"executed"})
        server.fail(HttpFault("/prompt", "lose_answer", method="POST"))

The replay says, frame by frame, what a recorded server said::

    async with ReplayServer("recordings/01_single_image.json") as server:
        ...                                            # submit server.graph to server.url

As a process: ``python -m emp_comfyui.testing --help``.
"""

from emp_comfyui.testing.faults import Faults, HttpFault
from emp_comfyui.testing.holds import Hold
from emp_comfyui.testing.node_class import Blocked, Input, NodeCall, NodeClass, NodeFailure, NodeRegistry, Result
from emp_comfyui.testing.pictures import Picture
from emp_comfyui.testing.recording import Recording
from emp_comfyui.testing.records import InterruptRecord, PromptRecord, RequestRecord, UploadRecord
from emp_comfyui.testing.replay import ReplayServer
from emp_comfyui.testing.server import FakeComfyUI

__all__ = [
    "Blocked",
    "FakeComfyUI",
    "Faults",
    "Hold",
    "HttpFault",
    "Input",
    "InterruptRecord",
    "NodeCall",
    "NodeClass",
    "NodeFailure",
    "NodeRegistry",
    "Picture",
    "PromptRecord",
    "Recording",
    "ReplayServer",
    "RequestRecord",
    "Result",
    "UploadRecord",
]

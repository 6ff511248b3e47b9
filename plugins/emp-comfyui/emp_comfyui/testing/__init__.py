"""For tests: a fake ComfyUI server, and a server that replays what a real one said.

Needs the extra ``emp-comfyui[testing]``.
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

"""Steps that installers are made of: each may be killed anywhere, done again, and found done."""

from emp_machine.steps.command import Command
from emp_machine.steps.download import Downloads
from emp_machine.steps.git import GitCheckout
from emp_machine.steps.manifest import FileEntry, read_manifest, read_objects
from emp_machine.steps.python import PipInstall, VirtualEnv
from emp_machine.steps.unpack import Unpack

__all__ = [
    "Command",
    "Downloads",
    "FileEntry",
    "GitCheckout",
    "PipInstall",
    "Unpack",
    "VirtualEnv",
    "read_manifest",
    "read_objects",
]

"""The errors of the machine layer."""

from typing import ClassVar

from emp_core.errors import EmpError

__all__ = ["MachineBusy", "MachineError"]


class MachineError(EmpError):
    """What runs on this machine could not be started, ended or looked at."""

    code: ClassVar[str] = "machine"


class MachineBusy(MachineError):
    """Another process holds this machine's folder: one at a time runs what is in it."""

    code: ClassVar[str] = "machine_busy"
    exit_code: ClassVar[int] = 2

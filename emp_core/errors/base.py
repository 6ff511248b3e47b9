"""The base of all errors, and those that are about no job."""

from collections.abc import Mapping
from typing import Any, ClassVar

__all__ = [
    "AddressRefused",
    "ConfigError",
    "EmpError",
    "InstallError",
    "PluginError",
]


class EmpError(Exception):
    """The base of all errors of emp-core.

    Args:
        message: what happened, and to what.
        hint: what to do next, if there is something to do.
        details: facts for programs, JSON-compatible; never secrets.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    """The exit code of the command line when this error ends it."""

    def __init__(self, message: str, *, hint: str | None = None, details: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details: dict[str, Any] = dict(details or {})

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message

    def as_dict(self) -> dict[str, Any]:
        """The error as it stands in ``--json`` output and in a job's ``error`` field."""
        shown: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            shown["hint"] = self.hint
        if self.details:
            shown["details"] = self.details
        return shown


class ConfigError(EmpError):
    """A setting, the service mapping or an argument is wrong.

    ``problems`` lists every mistake that was found, each with the place it stands at.
    """

    code = "config"
    exit_code = 2

    def __init__(
        self,
        message: str,
        *,
        problems: tuple[str, ...] = (),
        hint: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint=hint, details=details)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])

    def as_dict(self) -> dict[str, Any]:
        return {**super().as_dict(), **({"problems": list(self.problems)} if self.problems else {})}


class PluginError(EmpError):
    """A plugin cannot be used: it does not import, or two of them claim the same name."""

    code = "plugin"
    exit_code = 2


class InstallError(EmpError):
    """A service could not be installed, or its installation does not work."""

    code = "install"


class AddressRefused(EmpError):
    """An address from outside leads where it may not: into a private network, or to another kind of service."""

    code = "address_refused"

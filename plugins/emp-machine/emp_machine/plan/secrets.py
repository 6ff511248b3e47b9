"""Which variables hold secrets, and how variables are shown."""

import re
from collections.abc import Iterable, Mapping

from emp_core.config import Variable
from emp_core.log.redaction import hide_secrets
from emp_core.queue.addresses import shown_url

__all__ = ["HIDDEN", "secret_names", "shown_variables"]

HIDDEN = "(hidden)"

_LOOKS_SECRET = re.compile(
    r"KEY|TOKEN|PASS|SECRET|CREDENTIAL|AUTH|COOKIE|SIGNATURE|DSN|CONNECTION_STRING", re.IGNORECASE
)


def secret_names(environs: Iterable[Mapping[str, str]], known: Iterable[Variable]) -> frozenset[str]:
    """Names of the variables whose values are not for everybody: declared so, or by the look of the name or the value.

    Args:
        known: variables that are declared; those of them that are no secrets are judged by their value alone.
    """
    declared = {name: one.secret for one in known for name in (one.name, *one.aliases)}
    return frozenset(
        name
        for environ in environs
        for name, value in environ.items()
        if declared.get(name, _LOOKS_SECRET.search(name) is not None) or hide_secrets(value) != value
    )


def shown_variables(environ: Mapping[str, str], secrets: frozenset[str]) -> dict[str, str]:
    """The variables with secrets hidden; of Redis's address only what is secret in it."""
    return {name: _shown(name, value) if name in secrets else value for name, value in environ.items()}


def _shown(name: str, value: str) -> str:
    return shown_url(value) if name == "HUB_REDIS_URL" else HIDDEN

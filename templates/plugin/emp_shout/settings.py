"""What the plugin reads from the environment."""

from attrs import frozen
from emp_core import setting
from emp_core.config import number, text

__all__ = ["ShoutSettings"]


@frozen
class ShoutSettings:
    """Where the service is, and how long it may take. Durations are in seconds."""

    url: str = setting(
        "SHOUT_URL",
        default="http://127.0.0.1:9000",
        parse=text,
        help="Address of the service.",
    )
    api_key: str | None = setting(
        "SHOUT_API_KEY",
        default=None,
        parse=text,
        secret=True,
        help="Key that the service asks for.",
    )
    silence_s: float = setting(
        "SHOUT_SILENCE_S",
        default=300.0,
        parse=number(1),
        help="How long the service may be silent while it works on a job.",
    )

"""How a server is reached: its address, what it wants to see before it answers, and whom we believe that it is."""

import base64
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import field, frozen

from emp_core.errors import ConfigError

if TYPE_CHECKING:
    import ssl

__all__ = ["Access", "header_object"]

_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_OURS = frozenset({"host", "origin", "content-length", "transfer-encoding", "connection", "upgrade", "accept-encoding"})
"""Headers that the connection itself needs as they are; a foreign Origin makes a server refuse everything."""


def header_object(text: str) -> Mapping[str, str]:
    """Parse headers from a JSON object of texts."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError('expected a JSON object of texts, such as {"X-Api-Key": "…"}')
    for name, value in given.items():
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OURS:
            raise ValueError(f"{name[:40]!r} is no header that can be set")
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the value of {name} has characters that no header may have")
    return given


@frozen
class Access:
    """How one server is reached. Secrets are shown nowhere.

    Attributes:
        tls: whether it is spoken to over https and wss.
        base_path: a path in front of all routes, behind a proxy.
        token: sent as ``Authorization: Bearer``.
        user, password: sent as HTTP basic authentication.
        headers: sent with every request, too.
        ca_file: certificates of authorities that are believed besides the well-known ones.
        cert_file, key_file: the certificate that we show, and its key.
        verify: whether the server's certificate is checked.
    """

    host: str
    port: int
    tls: bool = False
    base_path: str = ""
    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(factory=dict, repr=False)
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    verify: bool = True

    @property
    def base_url(self) -> str:
        """The server's address."""
        host = f"[{self.host}]" if ":" in self.host and not self.host.startswith("[") else self.host
        path = self.base_path.strip("/")
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}" + (f"/{path}" if path else "")

    @property
    def has_secrets(self) -> bool:
        """Whether anything is sent that nobody else may see."""
        return bool(self.token or self.password or self.headers)

    def sent_headers(self) -> dict[str, str]:
        """The headers of every request.

        Raises:
            ConfigError: both a token and a user are set: there is one Authorization.
        """
        sent = dict(self.headers)
        if self.token and (self.user or self.password):
            raise ConfigError("a token and a user are set for one ComfyUI server", hint="set either, not both")
        if self.token:
            sent["authorization"] = f"Bearer {self.token}"
        elif self.user or self.password:
            login = f"{self.user or ''}:{self.password or ''}".encode()
            sent["authorization"] = f"Basic {base64.b64encode(login).decode()}"
        return sent

    def ssl_context(self) -> "ssl.SSLContext":
        """How certificates are checked, and which is shown.

        Raises:
            ConfigError: a file cannot be read.
        """
        import httpx  # not for those who only want to know the address: reading settings is cheap

        context = httpx.create_ssl_context(verify=self.verify, trust_env=False)
        if self.ca_file is not None:
            authorities = _path(self.ca_file)
            _read(self.ca_file, lambda: context.load_verify_locations(cafile=authorities))
        if self.cert_file is not None:
            shown, key = _path(self.cert_file), _path(self.key_file) if self.key_file else None
            _read(self.cert_file, lambda: context.load_cert_chain(shown, key))
        return context


def _path(text: str) -> str:
    return str(Path(text).expanduser())


def _read(path: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as error:  # SSLError is one
        raise ConfigError(
            f"the certificate file {path} cannot be used: {error}", hint="it must hold PEM, and be readable"
        ) from error

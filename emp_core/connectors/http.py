"""`HTTPConnector`: what connectors to services that speak HTTP have in common.

A connector to a simple service says where it is and how it is asked; connections, size caps, timeouts and error types
come from here:

    @frozen
    class Shout:
        text: str

    class ShoutConnector(HTTPConnector):
        service_type = "shout"
        payload_class = Shout
        health_path = "/health"

        def __init__(self, config: ServiceConfig) -> None:
            super().__init__(config, base_url=config.environ.get("SHOUT_URL", "http://127.0.0.1:9000"))

        async def process_job(self, job: Job, context: JobContext) -> JobResult:
            answer = await self.request_as(Shout, "POST", "/shout", json={"text": context.payload.text}, silence_s=300)
            return JobResult({"text": answer.text})
"""

import contextlib
import json as jsonlib
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

import anyio
import httpx
from attrs import frozen

from emp_core.connectors.base import Connector, Health, ServiceConfig
from emp_core.connectors.http_errors import error_of_exception, error_of_status
from emp_core.connectors.payload_mistakes import Unfit
from emp_core.connectors.payloads import read_answer
from emp_core.errors import ConnectorError, EmpError, JobFailed, ServiceUnavailable

__all__ = ["HTTPConnector", "Reply", "RequestOptions"]

T = TypeVar("T")

_CLOSE_LIMIT_S = 5.0
_ERROR_BODY_BYTES = 256 * 2**10
_WRITE_TIMEOUT_S = 60.0


class RequestOptions(TypedDict, total=False):
    """What every request may say.

    Attributes:
        params: of the query.
        json, content: the body, as JSON, as bytes, or piece by piece; for pieces the headers say a ``content-length``, or the
            service has to take a body that does not tell how long it is.
        headers: besides those of every request.
        silence_s: how long the answer may be silent; None: for ever; left out: the connector's ``silence_s``.
        accept: statuses besides 2xx that are answers, not errors.
    """

    params: Mapping[str, str] | None
    json: Any
    content: bytes | AsyncIterable[bytes] | None
    headers: Mapping[str, str] | None
    silence_s: float | None
    accept: Iterable[int]


@frozen
class Reply:
    """A whole answer.

    Attributes:
        headers: with names in lower case.
        body: at most as long as the request allowed.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text; what is no UTF-8 is replaced."""
        return self.body.decode("utf-8", "replace")


class HTTPConnector(Connector):
    """The base of connectors to services that speak HTTP.

    One pool of connections per connector, without the environment's proxies, without an ``Origin`` header, and without a
    limit on connections, so that long requests and sockets do not hold up short ones.

    **Waiting is told from dead** in three ways: a service that takes no connection is dead after ``connect_timeout_s``; a
    request may say how long its answer may be silent (``silence_s``; None: for ever); and the system's own keep-alive
    probes end a connection whose other side is gone while a request waits.

    Args:
        base_url: the service's address, with a path in front of all paths if it needs one.
    """

    health_path: ClassVar[str] = "/"
    """What `check_health` asks for; any 2xx is healthy."""
    connect_timeout_s: ClassVar[float] = 5.0
    silence_s: ClassVar[float | None] = 60.0
    """How long an answer may be silent, unless the request says otherwise."""
    health_timeout_s: ClassVar[float] = 10.0
    max_answer_bytes: ClassVar[int] = 64 * 2**20
    """The longest answer that is read into memory, unless the request says otherwise."""
    verify_tls: bool | ssl.SSLContext = True
    """Whether certificates are checked; a context of its own says how, and which certificate is shown."""

    def __init__(self, config: ServiceConfig, *, base_url: str) -> None:
        super().__init__(config)
        self.base_url = base_url.rstrip("/")
        self._client: httpx.AsyncClient | None = None

    @property
    def endpoint(self) -> str:
        """The service's address for messages and logs: without credentials and query."""
        try:
            url = httpx.URL(self.base_url)
        except httpx.InvalidURL:
            return "an unreadable address"
        port = f":{url.port}" if url.port is not None else ""
        host = f"[{url.host}]" if ":" in url.host else url.host
        return f"{url.scheme}://{host}{port}{url.path.rstrip('/')}"

    @property
    def client(self) -> httpx.AsyncClient:
        """The pool of connections, made when first needed."""
        if self._client is None:
            self._client = httpx.AsyncClient(
                transport=self.make_transport(), headers=self.make_headers(), trust_env=False, follow_redirects=False
            )
        return self._client

    def make_transport(self) -> httpx.AsyncBaseTransport:
        """How connections are made. Override for another certificate store or a unix socket."""
        return httpx.AsyncHTTPTransport(
            # Reading the certificate store takes longer than most requests: not for addresses that need none.
            verify=False if self.base_url.startswith("http://") else self.verify_tls,
            trust_env=False,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0),
            socket_options=list(_keep_alive_options()),
        )

    def make_headers(self) -> dict[str, str]:
        """Headers of every request. Credentials go here; they are shown nowhere.

        Answers are asked for uncompressed: a size cap on compressed bytes would cap nothing.
        """
        return {"user-agent": f"emp-{self.service_type}/{self.version}", "accept-encoding": "identity"}

    async def connect(self) -> None:
        """Find out that the service is there.

        Raises:
            ServiceUnavailable: it is not.
            AuthenticationFailed: it does not accept our credentials.
        """
        await self.request("GET", self.health_path, silence_s=self.health_timeout_s)

    async def disconnect(self) -> None:
        """Close all connections, within a time limit."""
        client, self._client = self._client, None
        if client is None:
            return
        with anyio.move_on_after(_CLOSE_LIMIT_S, shield=True):
            await client.aclose()

    async def check_health(self) -> Health:
        """Ask for ``health_path``."""
        try:
            with anyio.fail_after(self.health_timeout_s):
                await self.request("GET", self.health_path, silence_s=self.health_timeout_s)
        except EmpError as error:
            return Health(ok=False, reason=error.message, details=error.details)
        except TimeoutError:
            return Health(ok=False, reason=f"{self.endpoint} did not answer within {self.health_timeout_s:g} s")
        return Health(ok=True)

    async def request(
        self, method: str, path: str, *, max_bytes: int | None = None, **options: Unpack[RequestOptions]
    ) -> Reply:
        """Send a request and read its whole answer.

        Args:
            path: below the base address.
            max_bytes: the longest body taken; ``max_answer_bytes`` when left out.
            options: see `RequestOptions`.

        Raises:
            ServiceUnavailable, ConnectionLost: no whole answer came.
            ConnectorError: what `error_for` makes of the status.
            JobFailed: the body is longer than ``max_bytes``.
        """
        async with self.stream(method, path, **options) as response:
            body = await self.read_capped(response, self.max_answer_bytes if max_bytes is None else max_bytes)
        return Reply(response.status_code, response.headers, body)

    async def request_json(
        self, method: str, path: str, *, max_bytes: int | None = None, **options: Unpack[RequestOptions]
    ) -> Any:
        """`request`, with the answer read as JSON.

        Raises:
            ServiceUnavailable: the answer is no JSON; and what `request` raises.
        """
        reply = await self.request(method, path, max_bytes=max_bytes, **options)
        try:
            return jsonlib.loads(reply.body)
        except (ValueError, RecursionError) as error:
            raise self._not_understood(f"{method} {path}", "something that is no JSON", status=reply.status) from error

    async def request_as(
        self, kind: type[T], method: str, path: str, *, max_bytes: int | None = None, **options: Unpack[RequestOptions]
    ) -> T:
        """`request_json`, with the answer read into an attrs class, as strictly as a payload; other keys are left out.

        Raises:
            ServiceUnavailable: the answer does not fit; and what `request_json` raises.
        """
        answer = await self.request_json(method, path, max_bytes=max_bytes, **options)
        try:
            return read_answer(kind, answer)
        except Unfit as unfit:
            problems = list(unfit.problems)
            raise self._not_understood(f"{method} {path}", f"something else: {unfit}", problems=problems) from unfit

    @contextlib.asynccontextmanager
    async def stream(self, method: str, path: str, **options: Unpack[RequestOptions]) -> AsyncIterator[httpx.Response]:
        """Send a request and hand out the answer before its body is read. Errors of the connection come out as ours."""
        timeout = httpx.Timeout(
            read=options.get("silence_s", self.silence_s),
            write=_WRITE_TIMEOUT_S,
            connect=self.connect_timeout_s,
            pool=self.connect_timeout_s,
        )
        doing = f"{method} {path}"
        with self.told_as_ours(doing):
            async with self.client.stream(
                method,
                self.base_url + path,
                params=options.get("params"),
                json=options.get("json"),
                content=options.get("content"),
                headers=dict(options.get("headers") or {}),
                timeout=timeout,
            ) as response:
                if not response.is_success and response.status_code not in options.get("accept", ()):
                    raise self.error_for(await self._refusal(response), doing)
                yield response

    @contextlib.contextmanager
    def told_as_ours(self, doing: str) -> Iterator[None]:
        """Turn what httpx raises inside into our error types."""
        try:
            yield
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise error_of_exception(error, endpoint=self.endpoint, doing=doing) from error

    async def read_capped(self, response: httpx.Response, max_bytes: int) -> bytes:
        """An answer's body, counted while it arrives.

        Raises:
            JobFailed: it is longer than ``max_bytes``; nothing of it is kept.
        """
        return b"".join([chunk async for chunk in self.chunks_capped(response, max_bytes)])

    async def chunks_capped(self, response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
        """An answer's body in chunks, as they arrive. Raises as `read_capped` does."""
        doing = f"{response.request.method} {response.request.url.path}"
        told = response.headers.get("content-length", "")
        received = int(told) if told.isdecimal() and int(told) > max_bytes else 0
        if received:
            raise self._too_long(doing, max_bytes)
        with self.told_as_ours(doing):
            async for chunk in response.aiter_bytes():
                received += len(chunk)
                if received > max_bytes:
                    raise self._too_long(doing, max_bytes)
                yield chunk

    def error_for(self, reply: Reply, doing: str) -> EmpError:
        """The error for an answer that is no success. Override where a service means something else by a status."""
        return error_of_status(reply.status, reply.headers, reply.text, endpoint=self.endpoint, doing=doing)

    async def _refusal(self, response: httpx.Response) -> Reply:
        """An error's answer; of a long body only the beginning."""
        body = b""
        with self.told_as_ours(f"{response.request.method} {response.request.url.path}"):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) >= _ERROR_BODY_BYTES:
                    break
        return Reply(response.status_code, response.headers, body[:_ERROR_BODY_BYTES])

    def _not_understood(self, doing: str, what: str, **facts: Any) -> ConnectorError:
        return ServiceUnavailable(
            f"{self.endpoint} answered {doing} with {what}",
            hint="is it the right service, and no proxy's error page?",
            details={"endpoint": self.endpoint, "request": doing, **facts},
        )

    def _too_long(self, doing: str, max_bytes: int) -> ConnectorError:
        return JobFailed(
            f"{self.endpoint} answers {doing} with more than the {max_bytes:,} bytes that are taken",
            details={
                "endpoint": self.endpoint,
                "request": doing,
                "limit_bytes": max_bytes,
                "reason": "answer_too_long",
            },
        )


def _keep_alive_options() -> Iterable[tuple[int, int, int]]:
    """Have the system probe idle connections: a peer that is gone is noticed after about 30 s, however long we wait."""
    yield (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPALIVE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            yield (socket.IPPROTO_TCP, getattr(socket, name), value)

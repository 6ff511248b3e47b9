"""A file server of this machine, for tests."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from attrs import define, field

__all__ = ["FileServer", "file_server"]


@define
class FileServer:
    """Serves bytes from memory, as a test wants them served.

    Attributes:
        files: by path, with the slash.
        cut_after: end each answer after so many bytes; None: do not.
        statuses: answer these first, in turn.
        heads: whether HEAD is answered; else with 403, as by an address that was signed for GET.
        ranges: whether parts of files can be had.
        moved: by path, the address that it has moved to.
        requests: what was asked: method, path, range.
        logins: the header ``Authorization`` of each request that had one.
    """

    url: str = ""
    files: dict[str, bytes] = field(factory=dict)
    cut_after: int | None = None
    statuses: list[int] = field(factory=list)
    heads: bool = True
    ranges: bool = True
    token: str | None = None
    moved: dict[str, str] = field(factory=dict)
    requests: list[tuple[str, str, str]] = field(factory=list)
    logins: list[str] = field(factory=list)

    def entry(self, path: str, content: bytes, **more: object) -> dict[str, object]:
        """Serve a file; gives its line of a manifest."""
        self.files[f"/{path}"] = content
        digest = hashlib.sha256(content).hexdigest()
        return {"url": f"{self.url}/{path}", "path": path, "sha256": digest, "size": len(content), **more}

    def take(self, method: str, path: str, asked: str, login: str) -> int:
        """Note a request; gives the status to answer."""
        self.requests.append((method, path, asked))
        self.logins += [login] if login else []
        if path in self.moved:
            return 302
        if method == "HEAD" and not self.heads:
            return 403
        if method == "GET" and self.statuses:
            return self.statuses.pop(0)
        if self.token is not None and login != f"Bearer {self.token}":
            return 401
        return 200 if path in self.files else 404


@contextmanager
def file_server() -> Iterator[FileServer]:
    """A file server that runs."""
    server = FileServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            asked = self.headers.get("Range", "")
            status = server.take(self.command, self.path, asked, self.headers.get("Authorization", ""))
            if status != 200:
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", server.moved[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            content = server.files[self.path]
            tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            start = 0
            if server.ranges and asked and self.headers.get("If-Range", tag) == tag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            if start >= len(content) > 0:
                self.send_response(416)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.end_headers()
            if not with_body:
                return
            body = content[start:]
            if server.cut_after is not None and server.cut_after < len(body):
                self.wfile.write(body[: server.cut_after])
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
            pass

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            """A client that is killed leaves in the middle."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()

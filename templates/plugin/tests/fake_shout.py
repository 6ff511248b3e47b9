"""The service, as far as the tests need it: on a real socket, in this process."""

from aiohttp import web
from emp_core.testing.fake_service import FakeService

KEY = "a-key-that-nobody-may-see"


class FakeShout(FakeService):
    """Answers as the real service does."""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("authorization") != f"Bearer {KEY}":
            return web.Response(status=401)
        if request.path == "/health":
            return web.Response()
        if request.path != "/run":
            return web.Response(status=404)
        asked = await request.json()
        async with self.job():
            return web.json_response({"text": " ".join([asked["text"].upper()] * asked["times"])})

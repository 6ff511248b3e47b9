"""A small service over HTTP that takes its time: POST /work gives the payload back after the seconds that it asks for."""

import json
import sys
from typing import Any

import anyio
from anyio.abc import SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.chaos.servers import HOST


async def serve(client: SocketStream) -> None:
    """Answer one connection's requests."""
    received = BufferedByteReceiveStream(client)
    async with client:
        try:
            while True:
                head = (await received.receive_until(b"\r\n\r\n", 65_536)).decode()
                lengths = [
                    line.split(":")[1] for line in head.lower().splitlines() if line.startswith("content-length:")
                ]
                body = await received.receive_exactly(int(lengths[0])) if lengths else b""
                answer = json.dumps(await work(body)).encode()
                await client.send(
                    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (len(answer), answer)
                )
        except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError):
            return  # the worker went away


async def work(body: bytes) -> dict[str, Any]:
    """Do what is asked."""
    payload = json.loads(body) if body else {}
    options = payload.pop("$echo", {})
    await anyio.sleep(options.get("seconds", 0))
    return dict(payload)


async def main() -> None:
    """Listen on the port that the command line names."""
    listener = await anyio.create_tcp_listener(local_host=HOST, local_port=int(sys.argv[1]), reuse_port=True)
    async with listener:
        print("ready", flush=True)
        await listener.serve(serve)


if __name__ == "__main__":
    anyio.run(main)

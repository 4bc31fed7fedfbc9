"""Firefox ESR as Playwright drives it: `firefox_esr.py FIREFOX ARGUMENTS…` in the place of the browser.

Playwright speaks WebDriver BiDi with any Firefox. It sends one command that ESR 153 does not know yet, for
looks, and takes the refusal for a failure. This program starts the Firefox that is named first, stands
between both, and answers that command itself; everything else passes as it is.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys

UNKNOWN = "emulation.setMediaFeaturesOverride"
LISTENS = re.compile(rb"WebDriver BiDi listening on ws://127\.0\.0\.1:(\d+)")
TEXT, FINAL, MASKED = 0x1, 0x80, 0x80


async def frame(reader: asyncio.StreamReader) -> tuple[bytes, int, bytes]:
    """Read one frame of a WebSocket (RFC 6455): all of its bytes, its first byte and its content."""
    head = await reader.readexactly(2)
    more = {126: 2, 127: 8}.get(head[1] & 0x7F, 0)
    size = await reader.readexactly(more)
    length = int.from_bytes(size, "big") if more else head[1] & 0x7F
    mask = await reader.readexactly(4) if head[1] & MASKED else b""
    data = await reader.readexactly(length)
    whole = head + size + mask + data
    if mask:
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        data = (int.from_bytes(data, "big") ^ key).to_bytes(length, "big")
    return whole, head[0], data


def answer(number: int) -> bytes:
    """Return a frame from a server that says that a command is done."""
    data = json.dumps({"type": "success", "id": number, "result": {}}).encode()
    assert len(data) < 126
    return bytes([FINAL | TEXT, len(data)]) + data


async def from_playwright(
    client: asyncio.StreamReader, back: asyncio.StreamWriter, out: asyncio.StreamWriter
):
    """Pass Playwright's commands on, except the unknown one: it is answered here."""
    while True:
        whole, first, data = await frame(client)
        if first == FINAL | TEXT and UNKNOWN.encode() in data:
            command = json.loads(data)
            if command["method"] == UNKNOWN:
                back.write(answer(command["id"]))
                continue
        out.write(whole)
        await out.drain()


async def from_firefox(firefox: asyncio.StreamReader, back: asyncio.StreamWriter):
    """Pass whole frames back, so that an answer of ours never stands within one."""
    while True:
        back.write((await frame(firefox))[0])
        await back.drain()


async def serve(port: int) -> asyncio.Server:
    """Listen for Playwright, and connect each of its connections with Firefox's port."""

    async def connect(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        request = await client.readuntil(b"\r\n\r\n")
        request = re.sub(rb"(?im)^Sec-WebSocket-Extensions:.*\r\n", b"", request)  # nothing is compressed
        request = re.sub(rb"(?im)^Host:.*\r\n", b"Host: 127.0.0.1:%d\r\n" % port, request)
        firefox, out = await asyncio.open_connection("127.0.0.1", port)
        out.write(request)
        back.write(await firefox.readuntil(b"\r\n\r\n"))
        both = (from_playwright(client, back, out), from_firefox(firefox, back))
        tasks = [asyncio.create_task(each) for each in both]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in (back, out):
            writer.close()

    return await asyncio.start_server(connect, "127.0.0.1", 0)


async def main(command: list[str]) -> int:
    """Run Firefox until it ends, with our port in the line that says where it listens."""
    browser = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert browser.stderr
    async for line in browser.stderr:
        if match := LISTENS.search(line):
            server = await serve(int(match[1]))
            port = server.sockets[0].getsockname()[1]
            line = line.replace(match[1], str(port).encode(), 1)  # noqa: PLW2901 - the line that is shown
        sys.stderr.buffer.write(line)
        sys.stderr.buffer.flush()
    return await browser.wait()


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))

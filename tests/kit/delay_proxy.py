"""A proxy that makes a server as far away as it would be: every byte takes its time, both ways."""

from __future__ import annotations

import asyncio
import contextlib
import threading


class DelayProxy:
    """Stands before a port of this machine. Units: `delay_s`, one way, in seconds."""

    def __init__(self, port: int, delay_s: float = 0.015) -> None:
        self.delay_s = delay_s
        self.port = 0
        self._target = port
        self._listening = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="delay-proxy", daemon=True
        )

    def __enter__(self) -> DelayProxy:
        self._thread.start()
        assert self._listening.wait(10), "the proxy does not listen"
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        self._streams: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stopping.wait()
        server.close()
        for stream in self._streams:
            stream.transport.abort()
        while self._streams:
            await asyncio.sleep(0)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(self.delay_s)  # the wish to connect is under way, too
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._streams |= {writer, far_writer}
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))
        self._streams -= {writer, far_writer}

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes as they come; any number may be under way at once."""
        with contextlib.suppress(OSError):
            while content := await reader.read(65536):
                self._loop.call_later(self.delay_s, writer.write, content)
        await asyncio.sleep(self.delay_s)
        writer.close()

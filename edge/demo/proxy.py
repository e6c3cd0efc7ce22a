"""A TCP proxy that stands for a network: it loses answers, questions, or everything."""

import asyncio
import contextlib


class Proxy:
    """127.0.0.1:`port` -> `host`:`target`, until it is cut.

    A cut loses answers before it loses everything: the next requests still arrive, but what comes
    back does not. That is the case a sender cannot tell from "never arrived".
    mute: what is sent through the proxy gets lost on open connections, what comes back does not.
    """

    def __init__(self, target: int, host: str = "127.0.0.1") -> None:
        self.port = 0
        self.up = True
        self.mute = False
        self.answers_lost = 0
        self._host = host
        self._target = target
        self._answers_to_lose = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server:
            self._server.close()
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport is closed in the next turn of the loop

    def cut(self, answers: int = 4) -> None:
        """Lose the next `answers` answers, then refuse everything."""
        self.up = False
        self._answers_to_lose = answers

    def restore(self) -> None:
        self.up = True

    async def _connect(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not (self.up or self._answers_to_lose):
            back.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            far, out = await asyncio.open_connection(self._host, self._target)
            await self._carry(near, out, far, back)
        except OSError:
            back.transport.abort()
        except asyncio.CancelledError:
            pass  # the end; Python 3.11's streams would print a traceback of it
        finally:
            self._open.discard(task)

    async def _carry(
        self,
        near: asyncio.StreamReader,
        out: asyncio.StreamWriter,
        far: asyncio.StreamReader,
        back: asyncio.StreamWriter,
    ) -> None:
        """Both directions until either end closes."""
        asking = asyncio.create_task(self._ask(near, out))
        try:
            while data := await far.read(65536):
                if not self.up:
                    self.answers_lost += 1
                    self._answers_to_lose = max(0, self._answers_to_lose - 1)
                    break
                back.write(data)
                await back.drain()
        except OSError:
            pass  # either end may go away at any moment; the sender's retry is what is on show
        finally:
            asking.cancel()
            back.transport.abort()
            out.transport.abort()

    async def _ask(self, near: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await near.read(65536):
                if not self.mute:
                    out.write(data)
                    await out.drain()
            out.write_eof()

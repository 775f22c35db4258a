"""The server of the page: it answers this machine alone, who knows its token, and in bounded time.

- It binds to the loopback, and refuses any other ``Host`` and a foreign ``Origin``, so that no page
  of the web reaches it under a name of its own.
- The address that is printed carries a token, which becomes a cookie for this server alone.
- No path comes from a request: files of the page are a fixed table, logs arrive by content.
- Sizes, times and the number of computations at once are bounded; work is done in processes that
  can be ended.
"""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Any

import anyio
import anyio.to_process
import uvicorn
from anyio.abc import TaskGroup
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from optsched.errors import InvalidProblem
from optsched.explore.work import ANSWERS, answer, ready

__all__ = ["LOOPBACK", "App", "bound", "serve", "server_of"]

LOOPBACK = "127.0.0.1"
ASSETS = {
    "page.css": "text/css",
    "uplot.css": "text/css",
    "uplot.js": "text/javascript",
    "base.js": "text/javascript",
    "plots.js": "text/javascript",
    "model.js": "text/javascript",
    "runs.js": "text/javascript",
    "own.js": "text/javascript",
    "page.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
QUICK = ("solve",)  # answers that a slider waits for; a process is kept for them
MOST_BYTES = {"fit": 64_000_000, "report": 64_000_000}  # of a request; of all others:
FEW_BYTES = 8_000_000
SECONDS = {
    "solve": 30.0,
    "fit": 300.0,
    "plan": 300.0,
    "report": 300.0,
}  # of an answer; of all others:
FEW_SECONDS = 120.0
WAITING = 12  # requests in a queue
CONNECTIONS = 64
LOOK = 0.25  # seconds between looks whether anybody still waits
# Seconds that an answer nobody waits for is still worked at: a new process takes longer than most.
GRACE, GRACE_QUICK = 5.0, 0.5


class App:
    """The application, its token and its processes.

    Parameters
    ----------
    port : int
        Where it listens, which ``Host`` has to name.

    Attributes
    ----------
    token : str
        Who knows it may ask.
    asgi : starlette.applications.Starlette
    """

    def __init__(self, port: int) -> None:
        self.port, self.token = port, secrets.token_urlsafe(24)
        self.hosts = {f"{LOOPBACK}:{port}", f"localhost:{port}"}
        self.cookie = f"optsched-{port}"
        self.quick, self.slow = anyio.CapacityLimiter(1), anyio.CapacityLimiter(1)
        self.processes = anyio.CapacityLimiter(4)
        self.background: TaskGroup | None = None
        self.warm = anyio.Event()
        routes = [
            Route("/", self.front, methods=["GET"]),
            Route("/api/{name}", self.api, methods=["POST"]),
            Route("/{name}", self.asset, methods=["GET"]),
        ]
        self.asgi = Starlette(routes=routes, lifespan=self._life)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{LOOPBACK}:{self.port}/?token={self.token}"

    @asynccontextmanager
    async def _life(self, _: Starlette) -> AsyncIterator[None]:
        """Two processes get ready in the background while the page loads."""
        async with anyio.create_task_group() as group:
            self.background = group
            group.start_soon(self._warm)
            group.start_soon(self._warm)
            yield
            group.cancel_scope.cancel()

    async def _warm(self) -> None:
        """A process that has loaded what it needs; who asks meanwhile waits for it."""
        try:
            # The first question names a broken one; Ctrl-C in a terminal reaches all processes.
            with suppress(anyio.BrokenWorkerProcess, KeyboardInterrupt):
                await anyio.to_process.run_sync(ready, cancellable=True, limiter=self.processes)
        finally:
            self.warm.set()

    def _refused(self, request: Request) -> Response | None:
        """Why a request is not answered, if so."""
        if request.headers.get("host", "").lower() not in self.hosts:
            return _said(403, "this server answers to its own address alone")
        origin = request.headers.get("origin")
        if origin is not None and origin.lower() not in {f"http://{host}" for host in self.hosts}:
            return _said(403, "requests of other pages are refused")
        given = request.cookies.get(self.cookie, "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return _said(403, "open the address that optsched explore has printed: it has a token")
        return None

    async def front(self, request: Request) -> Response:
        """The page; a token in the address becomes a cookie and leaves the address."""
        token = request.query_params.get("token")
        host = request.headers.get("host", "").lower()
        if token is not None and host in self.hosts:
            if not secrets.compare_digest(token.encode(), self.token.encode()):
                return _said(403, "this is not the token of this server: it has started anew")
            response = RedirectResponse("/", status_code=303, headers=HEADERS)
            response.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return response
        return self._refused(request) or _file("page.html", "text/html")

    async def asset(self, request: Request) -> Response:
        """A file of the page, from a fixed table."""
        name = request.path_params["name"]
        refused = self._refused(request)
        if refused is not None:
            return refused
        return _file(name, ASSETS[name]) if name in ASSETS else _said(404, "there is no such page")

    async def api(self, request: Request) -> Response:
        """An answer as JSON; what is wrong with a question is an answer too."""
        refused = self._refused(request)
        if refused is not None:
            return refused
        name = request.path_params["name"]
        if name not in ANSWERS:
            return _said(404, "there is no such question")
        if request.headers.get("content-type", "").split(";")[0] != "application/json":
            return _said(415, "a question is application/json")
        most = MOST_BYTES.get(name, FEW_BYTES)
        try:
            raw = await _body(request, most)
        except ClientDisconnect:
            return Response(status_code=499)
        if raw is None:
            return _json(_wrong(f"this is more than {most / 1e6:g} MB"))
        try:
            body = json.loads(raw)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            return _json(_wrong("a question is one JSON object"))
        return _json(await self._answer(request, name, body))

    async def _answer(self, request: Request, name: str, body: dict[str, Any]) -> dict[str, Any]:
        turn = self.quick if name in QUICK else self.slow
        if turn.statistics().tasks_waiting >= WAITING:
            return _wrong("too many questions at once: wait for the answers")
        limit = SECONDS.get(name, FEW_SECONDS)
        async with turn:
            await self.warm.wait()
            if await request.is_disconnected():
                return _wrong("nobody waits for this answer")
            found: dict[str, Any] | None = None
            with anyio.move_on_after(limit) as timer:
                found = await self._unless_left(request, name, body)
            if found is not None:
                return found
            if self.background is not None:
                self.background.start_soon(self._warm)
            if timer.cancelled_caught:
                return _wrong(f"this takes more than {limit:g} s: run it on the command line")
            return _wrong("nobody waits for this answer")

    async def _unless_left(
        self, request: Request, name: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The answer of a process, which is ended if who asked has gone."""
        found: dict[str, Any] | None = None

        async def work() -> None:
            nonlocal found
            try:
                found = await anyio.to_process.run_sync(
                    answer, name, body, cancellable=True, limiter=self.processes
                )
            except anyio.BrokenWorkerProcess:
                found = _wrong("the computation ended early, perhaps for lack of memory")
            except KeyboardInterrupt:  # of the process: Ctrl-C reaches all of a terminal
                found = _wrong("the explorer is ending")
            group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            group.start_soon(work)
            while not await request.is_disconnected():
                await anyio.sleep(LOOK)
            await anyio.sleep(GRACE_QUICK if name in QUICK else GRACE)
            group.cancel_scope.cancel()
        return found


async def _body(request: Request, most: int) -> bytes | None:
    """The body of a request; None for more than so many bytes."""
    parts, size = [], 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= most:
            parts.append(chunk)
    return None if size > most else b"".join(parts)


def _wrong(text: str) -> dict[str, Any]:
    return {"error": {"text": text}}


def _json(content: dict[str, Any]) -> Response:
    text = json.dumps(content, allow_nan=False, separators=(",", ":"))
    return Response(text, media_type="application/json", headers=HEADERS)


def _said(status: int, text: str) -> Response:
    return PlainTextResponse(f"optsched: {text}\n", status, headers=HEADERS)


def _file(name: str, kind: str) -> Response:
    content = files("optsched.explore").joinpath("assets", name).read_bytes()
    return Response(content, media_type=kind, headers=HEADERS)


def bound(port: int) -> socket.socket:
    """A socket on the loopback.

    Parameters
    ----------
    port : int
        0 for one that is free.

    Raises
    ------
    InvalidProblem
        Something else listens there, or it may not be used.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except OSError as error:
        found.close()
        why = error.strerror or str(error)
        raise InvalidProblem("port", port, f"a free port, or 0 for any ({why})") from None
    return found


def serve(port: int, started: Callable[[str], None]) -> None:
    """Serve the page until the process is interrupted.

    Parameters
    ----------
    port : int
        0 for one that is free.
    started : callable
        Called with the address as soon as requests are answered.

    Raises
    ------
    InvalidProblem
        The port cannot be used.
    """
    with bound(port) as listening:
        app = App(listening.getsockname()[1])
        server_of(app, lambda: started(app.address)).run(sockets=[listening])


def server_of(app: App, started: Callable[[], None]) -> uvicorn.Server:
    """The server of an application, which calls back when it listens."""
    config = uvicorn.Config(
        app.asgi,
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=1,
        ws="none",
        lifespan="on",
    )
    return _Server(config, started)


class _Server(uvicorn.Server):
    """Calls back when it listens."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()

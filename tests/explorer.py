"""An explorer that runs, and questions to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

PROBLEM = {"a": 3.5, "b": 2.0, "horizon": 1000}


class Explorer:
    """A server in a thread, and a client that knows its token."""

    def __init__(self, app: Any) -> None:
        self.app, self.port = app, app.port

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        token: bool = True,
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        sent = {"Cookie": f"{self.app.cookie}={self.app.token}"} if token else {}
        connection.request(method, path, body, sent | dict(headers or {}))
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, content

    def ask(self, name: str, body: Any) -> dict[str, Any]:
        kind = {"Content-Type": "application/json"}
        status, _, content = self.send("POST", f"/api/{name}", json.dumps(body).encode(), kind)
        assert status == 200, content
        return json.loads(content)


@contextmanager
def explorer() -> Iterator[Explorer]:
    """An explorer on a free port."""
    server = pytest.importorskip("optsched.explore.server", exc_type=ImportError)
    listening = threading.Event()
    with server.bound(0) as place:
        app = server.App(place.getsockname()[1])
        runs = server.server_of(app, listening.set)
        thread = threading.Thread(target=runs.run, kwargs={"sockets": [place]})
        thread.start()
        try:
            assert listening.wait(60)
            yield Explorer(app)
        finally:
            runs.should_exit = True
            thread.join(60)
    assert not thread.is_alive()

"""Sweeps on a Dask cluster."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from optsched.errors import InvalidProblem, MissingExtra, SweepFailed

__all__ = ["Cluster", "dask_executor", "line", "named"]


def line(error: BaseException) -> str:
    """Message of an error, in one line."""
    return " ".join(str(error).split())


def named(error: BaseException) -> str:
    """``TypeName: message`` of an error, in one line."""
    return f"{type(error).__name__}: {line(error)}".removesuffix(": ")


class Cluster(Executor):
    """Executor on the workers of a Dask client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        # Dask would take two calls with equal arguments for one.
        self._executor = client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Threads of all workers, now."""
        return sum(self._client.nthreads().values())  # the whole of `scheduler_info` is long

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a call on the cluster."""
        return self._executor.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; the client stays connected."""
        self._executor.shutdown(wait=wait and not cancel_futures)


@contextmanager
def dask_executor(address: str, *, timeout: float = 8.0) -> Iterator[Executor]:
    """Context of an executor on a running Dask cluster, to be passed to `sweep`.

    Parameters
    ----------
    address : str
        Address of the scheduler, ``tcp://HOST:PORT``. Its workers must be able to import optsched.
    timeout : float
        Seconds to wait for the scheduler.

    Yields
    ------
    concurrent.futures.Executor
        Runs what is submitted on the cluster; the connection ends with the context.

    Raises
    ------
    MissingExtra
        If Dask is not installed.
    InvalidProblem
        If the address is malformed.
    SweepFailed
        If no Dask scheduler answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise MissingExtra(
            "Dask is not installed: pip install 'optsched[dask]', or pip install distributed"
        ) from None
    _reach(address, timeout)
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except Exception as error:
        raise SweepFailed(f"Dask scheduler {address}: {named(error)}") from error
    try:
        yield Cluster(client)
    finally:
        # If the scheduler died, the client is connecting again, and logs that it was stopped.
        log = logging.getLogger("distributed.client")
        level = log.level
        log.setLevel(logging.CRITICAL)
        try:
            client.close()
        finally:
            log.setLevel(level)


def _reach(address: str, timeout: float) -> None:
    """Ask who is there before a client does, which logs at length what went wrong."""
    from distributed.comm.addressing import normalize_address, parse_host_port
    from distributed.comm.registry import get_backend

    form = "the address of a Dask scheduler, tcp://HOST:PORT"
    try:
        if not address.strip():
            raise ValueError("empty")
        scheme, _, place = normalize_address(address).partition("://")
        get_backend(scheme)
        host, port = parse_host_port(place)
        if not host or not 0 < int(port) < 2**16:
            raise ValueError("no host, or no port from 1 to 65535")
    except (ValueError, TypeError, AttributeError) as error:
        raise InvalidProblem("address", address, f"{form} ({line(error)})") from None
    try:
        # In a thread of its own, as this one may have a running loop (notebooks).
        with ThreadPoolExecutor(1) as pool:
            kind = pool.submit(asyncio.run, _identity(address, timeout)).result()
    except TimeoutError:
        reason = "no answer"
    except OSError as error:
        # "in <a connector at an address in memory>: ConnectionRefusedError: [Errno ...] ..."
        reason = line(error.__cause__ or error).rpartition(">: ")[2] or type(error).__name__
    except Exception as error:  # the answer of a web server looks like a message of 3 EiB
        reason = f"what answers is no Dask scheduler ({named(error)})"
    else:
        if kind == "Scheduler":
            return
        reason = f"a {kind} answers, not a scheduler"
    raise SweepFailed(f"Dask scheduler {address}: not reached within {timeout:g} s: {reason}")


async def _identity(address: str, timeout: float) -> str:
    from distributed.core import rpc

    async with asyncio.timeout(timeout + 1.0):  # the inner one knows more, but not of silence
        async with rpc(address, timeout=timeout) as remote:
            found: Any = await remote.identity()
            return found["type"]

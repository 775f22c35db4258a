"""Locks of a sweep's folder: one process alone, or many that claim cells one by one.

The system drops every lock when its process dies, however it dies. Locks of single bytes of one
file (`Claims`) hold over a network file system too, if that has locks at all; where it has none,
two processes may do a cell twice, and no other harm.
"""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from optsched.errors import BadFile

__all__ = ["Claims", "take_folder"]

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
MUTEX = 1 << 40  # byte that is held while the folder's own files are written
NOTE = 1 << 20  # byte that is locked on Windows, far behind the note, which others read


def take_folder(lock: IO[str], folder: Path, shared: bool) -> None:
    """Take the lock of a folder, alone or with other shards; closing the file drops it.

    Raises
    ------
    BadFile
        A process works there that this one cannot share with.
    """
    try:
        if sys.platform == "win32":
            import msvcrt

            if shared:
                return  # no shared locks there: claims keep cells apart
            lock.seek(NOTE)
            msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return
        lock.seek(0)
        who = lock.read(200).strip() or "another process"
        raise BadFile(
            f"{folder}: {who} works on this sweep; wait for it or give another folder"
        ) from None
    lock.seek(0)
    lock.truncate(0)
    how = "a shard in process" if shared else "process"
    lock.write(f"{how} {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


class Claims:
    """Bytes of a file, each the right to do one cell; held until given back or the process ends.

    Parameters
    ----------
    path : pathlib.Path
        Made if it is not there; it stays empty. A process must open it once only: closing any
        handle of a file drops all its locks.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("a+b")

    def take(self, index: int) -> bool:
        """Whether the cell of a number is now this process's; False if another has it."""
        try:
            self._lock(index, wait=False)
        except OSError as error:
            if error.errno in NO_LOCKS:
                return True
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                return False
            raise
        return True

    def give(self, index: int) -> None:
        """Give a cell back."""
        try:
            if sys.platform == "win32":
                import msvcrt

                self._file.seek(index)
                msvcrt.locking(self._file.fileno(), msvcrt.LK_UNLCK, 1)
            else:
                import fcntl

                fcntl.lockf(self._file, fcntl.LOCK_UN, 1, index)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context in which no other process is within the same; waits for it."""
        try:
            self._lock(MUTEX, wait=True)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        try:
            yield
        finally:
            self.give(MUTEX)

    def _lock(self, index: int, wait: bool) -> None:
        if sys.platform == "win32":
            import msvcrt

            self._file.seek(index)
            msvcrt.locking(self._file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.lockf(self._file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB), 1, index)

    def close(self) -> None:
        """Give everything back."""
        self._file.close()

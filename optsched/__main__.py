"""``optsched`` as a process of the shell: started, interrupted at any time, and ended.

Nothing is imported before there is somebody to answer Ctrl-C.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # as in typing, which takes longer than the rest
if TYPE_CHECKING:
    from typing import Any, NoReturn

__all__ = ["run"]

INTERRUPTED = 130
PATIENCE = 1.0  # seconds
CLEANS_UP = "save_figure"  # imports too, within a file that is being written


def run() -> NoReturn:
    """Entry point of the installed command."""
    try:
        _listen()
        from optsched.cli import main

        code = main()
    except KeyboardInterrupt:
        _leave()
    if code == INTERRUPTED and _busy():
        _leave(said=True)
    sys.exit(code)


def _busy() -> bool:
    """Whether threads go on after a moment: one that compiles would keep the process for long."""
    import threading

    others = [one for one in threading.enumerate() if one is not threading.main_thread()]
    for one in others:
        if not one.daemon:
            one.join(PATIENCE / len(others))
    return any(one.is_alive() and not one.daemon for one in others)


def _listen() -> None:
    """Answer Ctrl-C with KeyboardInterrupt where that is safe, and by leaving where it is not.

    In an import it is not: it can become another error, leave half a module, or crash a library
    that is being loaded. In a callback Python ignores it. A second Ctrl-C ends the process.
    """
    import signal

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # ignored, as for jobs in the background

    def stop(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.unraisablehook = ignored
        if _importing(frame):
            _leave()
        raise KeyboardInterrupt

    def ignored(error: Any) -> None:
        if issubclass(error.exc_type, KeyboardInterrupt):
            _leave()
        sys.__unraisablehook__(error)

    signal.signal(signal.SIGINT, stop)


def _importing(frame: Any) -> bool:
    """Whether an import is under way that is not part of writing a file."""
    found = False
    while frame is not None:
        if frame.f_code.co_name == CLEANS_UP:
            return False
        found = found or frame.f_code.co_filename.startswith("<frozen importlib")
        frame = frame.f_back
    return found


def _leave(said: bool = False) -> NoReturn:
    """End the process at once, with a word unless there was one."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, "" if said else "optsched: interrupted\n")):
        if stream is not None:
            stream.write(text)
            stream.flush()
    os._exit(INTERRUPTED)


if __name__ == "__main__":
    run()

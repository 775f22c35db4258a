"""Settings of NumPy and JAX under which the library computes, whatever those of the process are."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from optsched.errors import OptschedError

__all__ = ["jax_settings", "quiet"]

# For functions, as a decorator: what is not finite is handled where it appears.
quiet = np.errstate(all="ignore")


@contextmanager
def jax_settings() -> Iterator[None]:
    """Double precision, and nothing that a process may forbid for its own code.

    Raises
    ------
    OptschedError
        If JAX has no device to compute on, as where ``JAX_PLATFORMS`` names one that is not there.
    """
    import jax

    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no backend is there at all
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error) or "none of the platforms is there"
        raise OptschedError(
            f"JAX has no device to compute on (JAX_PLATFORMS={wanted!r}): {reason}"
        ) from None
    with ExitStack() as stack:
        for setting in (
            np.errstate(all="ignore"),
            jax.enable_x64(True),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.transfer_guard("allow"),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            stack.enter_context(setting)
        yield

"""Norms of gradients, updates and parameters, of JAX, torch or NumPy, in one number.

torch is used where its tensors are passed, and imported nowhere.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from optsched.errors import InvalidProblem

__all__ = ["mean_and_squares", "snapshot", "tree_distance", "tree_norm"]


def tree_norm(tree: Any, *, gradient: bool = False) -> float:
    """Euclidean norm over all arrays of a tree.

    Parameters
    ----------
    tree : pytree of JAX or NumPy arrays, iterable of torch tensors, or torch module
    gradient : bool
        Of a torch module or its parameters, the ``grad`` of each; those without one are 0.

    Returns
    -------
    float
        Summed in float32 at least, without overflow; nan or inf where an entry is.

    Raises
    ------
    InvalidProblem
        A tree without arrays of numbers.
    """
    return _norm(_leaves(tree, gradient))


def tree_distance(tree: Any, other: Any) -> float:
    """Norm of the difference of two trees with arrays of the same shapes; see `tree_norm`."""
    one, two = _leaves(tree), _leaves(other)
    shapes = [[tuple(leaf.shape) for leaf in leaves] for leaves in (one, two)]
    if shapes[0] != shapes[1]:
        raise InvalidProblem("before", f"shapes {shapes[1]}", f"those of parameters, {shapes[0]}")
    return _norm([_wide(x) - _wide(y) for x, y in zip(one, two, strict=True)])


def snapshot(tree: Any) -> list[Any]:
    """Copies of all arrays of a tree, as torch and NumPy write over theirs.

    JAX arrays never change and are kept as they are.
    """
    return [_copy(leaf) for leaf in _leaves(tree)]


def mean_and_squares(trees: Iterable[Any]) -> tuple[float, float, int]:
    """Mean of the squared norms of trees, squared norm of their mean, and how many there are.

    Raises
    ------
    InvalidProblem
        Trees of different shapes.
    """
    total: list[Any] = []
    squares, count = 0.0, 0
    for tree in trees:
        leaves = [_wide(leaf) for leaf in _leaves(tree)]
        if count and [leaf.shape for leaf in leaves] != [leaf.shape for leaf in total]:
            raise InvalidProblem("gradients", "trees of different shapes", "trees of one shape")
        squares += _norm(leaves) ** 2
        total = [x + y for x, y in zip(total, leaves, strict=True)] if count else leaves
        count += 1
    if not count:
        return 0.0, 0.0, 0
    return squares / count, (_norm(total) / count) ** 2, count


def _copy(leaf: Any) -> Any:
    if _is_torch(leaf):
        return leaf.clone()
    return leaf.copy() if isinstance(leaf, np.ndarray) else leaf


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _leaves(tree: Any, gradient: bool = False) -> list[Any]:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(tree, torch.nn.Module):
        tree = tree.parameters()
    found = list(_walk(tree))
    if gradient:
        found = [leaf.grad if _is_torch(leaf) and leaf.is_leaf else leaf for leaf in found]
    leaves = [leaf.detach() if _is_torch(leaf) else leaf for leaf in found if leaf is not None]
    for leaf in leaves:
        if not hasattr(leaf, "shape") or not hasattr(leaf, "dtype"):
            allowed = "a tree of arrays of JAX, NumPy or torch"
            raise InvalidProblem("tree", type(leaf).__name__, allowed)
    if not leaves:
        raise InvalidProblem("tree", "no arrays", "a tree with one array at least")
    return leaves


def _walk(tree: Any) -> Iterable[Any]:
    """Leaves of nested containers; those of JAX's own kinds (dataclasses, ...) through JAX."""
    if tree is None:
        return
    if isinstance(tree, Mapping):
        tree = [tree[key] for key in sorted(tree)]
    if hasattr(tree, "shape"):
        yield tree
    elif isinstance(tree, Iterable) and not isinstance(tree, str | bytes):
        for part in tree:
            yield from _walk(part)
    elif isinstance(tree, int | float):
        yield np.asarray(tree, float)
    else:
        import jax

        leaves = jax.tree.leaves(tree)
        if len(leaves) == 1 and leaves[0] is tree:
            yield tree
        else:
            yield from _walk(leaves)


def _wide(leaf: Any) -> Any:
    """In float32 at least, where differences of half-precision numbers are kept."""
    if _is_torch(leaf):
        return leaf.float() if leaf.element_size() < 4 or not leaf.is_floating_point() else leaf
    if isinstance(leaf, np.ndarray | np.generic):
        return np.asarray(leaf, np.float64)
    import jax.numpy as jnp

    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _norm(leaves: list[Any]) -> float:
    """Norm by kind of array, one transfer for each kind."""
    parts = []
    host = [leaf for leaf in leaves if isinstance(leaf, np.ndarray | np.generic)]
    parts += [float(np.linalg.norm(np.asarray(leaf, np.float64).ravel())) for leaf in host]
    torch_leaves = [_wide(leaf) for leaf in leaves if _is_torch(leaf)]
    if torch_leaves:
        torch = sys.modules["torch"]
        parts += [torch.linalg.vector_norm(leaf).item() for leaf in torch_leaves]
    rest = [x for x in leaves if not isinstance(x, np.ndarray | np.generic) and not _is_torch(x)]
    if rest:
        parts.append(float(_jax_norm()(rest)))
    return math.hypot(*parts)


@functools.cache
def _jax_norm() -> Callable[[list[Any]], Any]:
    import jax
    import jax.numpy as jnp

    def norm(leaves: list[Any]) -> Any:
        wide = [jnp.abs(_wide(leaf)) for leaf in leaves if leaf.size]
        top = jnp.max(jnp.stack([leaf.max().astype(jnp.float32) for leaf in wide]))
        # Scaled, as squares of gradients overflow and underflow in float32.
        unit = jnp.where((top > 0.0) & jnp.isfinite(top), top, 1.0)
        return unit * jnp.sqrt(sum(jnp.sum((leaf / unit) ** 2) for leaf in wide))

    return jax.jit(norm)

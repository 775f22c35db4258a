"""The names meant for others; a module is imported when a name of it is used."""

from .block import sgd_block as sgd_block
from .chain import PlainChain as PlainChain
from .curves import (
    block_curves as block_curves,
    final_excess as final_excess,
    step_curves as step_curves,
)

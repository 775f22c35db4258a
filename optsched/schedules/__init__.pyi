"""The names meant for others; a module is imported when a name of it is used."""

from .batches import (
    BatchStage as BatchStage,
    batch_stages as batch_stages,
    degenerate_family as degenerate_family,
    integer_batches as integer_batches,
)
from .schedule import Schedule as Schedule

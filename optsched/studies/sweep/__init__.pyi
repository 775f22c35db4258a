"""The names meant for others; a module is imported when a name of it is used."""

from .run import (
    Progress as Progress,
    Row as Row,
    Sweep as Sweep,
    dask_executor as dask_executor,
    sweep as sweep,
)
from .shards import Shard as Shard, stopping as stopping

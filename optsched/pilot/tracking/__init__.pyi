"""The names meant for others; a module is imported when a name of it is used."""

from .callbacks import (
    lightning_forecast as lightning_forecast,
    lightning_log as lightning_log,
    trainer_forecast as trainer_forecast,
    trainer_log as trainer_log,
)
from .follow import Follower as Follower
from .runlog import RunLog as RunLog
from .track import Track as Track
from .under_way import UnderWay as UnderWay, steps_to as steps_to

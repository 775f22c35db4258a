"""The names meant for others; a module is imported when a name of it is used."""

from .command import Command as Command, Failed as Failed, Refused as Refused
from .lazy import Interrupted as Interrupted, LazyGroup as LazyGroup
from .show import print_json as print_json, print_lines as print_lines, print_table as print_table

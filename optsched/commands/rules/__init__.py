"""``optsched rules``, a module for each of its sub-commands."""

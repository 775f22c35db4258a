"""Logs of real runs: from files to the loss at some steps and the rate of every step."""

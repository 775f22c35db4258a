"""Averages of the weights against decay of the rate; weight decay."""

"""Several controls together: coordinates, nodes, starts, search, second-order evidence."""

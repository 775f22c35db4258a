"""The optimal-control problem and how it is solved."""

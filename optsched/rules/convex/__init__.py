"""What the bound of convex optimisation says of a schedule, and of another horizon."""

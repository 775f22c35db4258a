"""Lower bounds that hold for every schedule, and the relaxed problem they come from."""

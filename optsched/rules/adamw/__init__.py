"""AdamW: equilibrium of the norm, trajectory invariance, sweeps over rate and decay."""

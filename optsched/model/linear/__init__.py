"""Second moments of linear optimisers in NumPy: powers of a step, chains of blocks, derivatives."""

"""Plain SGD: the map of a block of steps, in NumPy or JAX, and what follows from it in NumPy."""

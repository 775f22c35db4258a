"""SGD on power-law features, reduced to modes."""

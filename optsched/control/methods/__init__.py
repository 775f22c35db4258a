"""Methods that improve the controls of a mesh, and what they are made of."""

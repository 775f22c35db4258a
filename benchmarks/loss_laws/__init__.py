"""How well laws predict runs that they have not seen."""

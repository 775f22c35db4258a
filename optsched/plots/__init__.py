"""Figures, a module for each result: solution, comparison, scaling, compute, phases, paper.

Every function takes and returns Axes, or makes a Figure of them; nothing writes a file or sets a
style. Colours are those of Okabe and Ito, told apart by colour-blind readers, and by their line
styles in print.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

"""Methods with a linear minimisation oracle (Muon, signs): bound, tuned parameters, transfer."""

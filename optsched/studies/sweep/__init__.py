"""One function over many cells, on any executor, resumable."""

"""Sources → Results: decode ahead, batch, run, in order."""

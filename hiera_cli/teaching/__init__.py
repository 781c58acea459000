"""Features of labelled images → a classifier of these classes, and what to mistrust of it."""

"""Arguments → Sources, and their bytes."""

"""A model's name → verified weights, architecture and labels."""

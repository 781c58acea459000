"""What a row of the model's output means."""

"""Results → text and files."""

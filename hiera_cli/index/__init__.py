"""Features of photos in a SQLite file, kept up to date with the folders, and what can be asked of them."""

"""A page of results: one HTML file, which a browser opens from disk, with its script and its style within."""

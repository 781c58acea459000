"""What lies below everything: text, terminals, streams, threads."""

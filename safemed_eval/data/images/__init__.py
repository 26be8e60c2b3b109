"""Image files: where they are, how they are decoded to 8-bit RGB, and their fingerprints."""

"""Watching a training: validation, the best checkpoint, samples, and a log that stops and resumptions leave whole."""

"""What a reader must know of a run beside its numbers, each fact in a module of its own."""

"""Facts that a reader must know beside the numbers of a run, each in a module of its own; `collect` has them all."""

"""The work of a run shared among Ray's workers."""

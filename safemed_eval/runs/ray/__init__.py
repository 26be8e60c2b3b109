"""Execution of a run's work by several Ray workers."""

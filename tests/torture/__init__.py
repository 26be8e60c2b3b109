"""Hurts the tool and counts what is lost: `make torture`, or `python -m torture` with tests/ on the path.

`kills` ends commands at random moments and starts them again, `mutants` breaks the source and asks whether a test
notices. Both leave JSON in reports/torture, from which `table` writes the README there.
"""

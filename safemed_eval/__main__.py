"""Run the command line: `python -m safemed_eval` is the same as `safemed-eval`."""

from safemed_eval.cli import main

main()

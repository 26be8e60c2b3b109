"""`python -m safemed_eval` is `safemed-eval`."""

from safemed_eval.cli import main

main()

"""The formats that `--data` reads or makes, one module each."""

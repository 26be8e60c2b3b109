"""What `--model` names, as files: found, checked and hashed without torch."""

"""The files of models and denoisers, checked and hashed without torch."""

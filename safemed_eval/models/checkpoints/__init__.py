"""Transformers checkpoints behind the waist: how they are loaded, asked and read."""

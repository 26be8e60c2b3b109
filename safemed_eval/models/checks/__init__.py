"""The checks of `models.check`, by what they look at."""

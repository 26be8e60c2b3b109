"""safemed_eval: how robust is a medical vision-language model?"""

__version__ = "0.1.0"

"""The tags that a model that was trained here puts around its answer."""

OPENING_TAG, CLOSING_TAG = "<answer>", "</answer>"

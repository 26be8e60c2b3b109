"""The look of figures: their style and size, and the parts that several kinds of figures share.

`figures` has the kinds that a report holds; `one_run` draws the figure of one run that a notebook shows.
"""

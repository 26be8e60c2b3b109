"""The formats that `--data KIND:...` reads or makes: one module each, found by its name.

A new format is one new module here, or in a package of yours under the entry point group `safemed_eval.data`; no list
names it. This is a whole one, of files with lines such as "0.png|Which organ?|Liver|Lung|Liver":

>>> from functools import partial
>>> from safemed_eval.core import Item
>>> from safemed_eval.data.records import Builder, gold_index, image_path, make_question
>>> def load(place, root):
...     builder = Builder()
...     for number, line in enumerate(place.read_text().splitlines(), start=1):
...         builder.add(f"line {number}", partial(item, number, line, root or place.parent))
...     return builder.done()
>>> def item(number, line, root):
...     image, question, gold, *options = line.split("|")
...     return Item(
...         id=f"line {number}",
...         question=make_question(question, options),
...         label=gold_index(gold, options),
...         image=image_path(image, root),
...         root=root,
...     )

`load` gets a file or folder that exists, and the folder that image paths are relative to, where the user names one. It
opens no image. Where making an item raises DataError, the record is listed as bad with the reason, and the rest is
still read; the functions of `records` raise it in the words of every other format. What is not the format at all raises
DataError at once. `omnimedvqa.py` is the shortest format that is in use.

A format that is made, as `phantom.py`, has `make(options)` instead, and items that draw their images: `Item.drawn`.
"""

"""The formats that `--data KIND:...` reads or makes: one module each, found by its name.

A new format is one new module here, or in your own package under the entry point group `safemed_eval.data`. No list
names it. A format that is read has a function `load(place, root)`; `omnimedvqa.py` is the shortest example:

    def load(place: Path, root: Path | None) -> DataSet:
        builder = Builder()                                  # from data.records.builder
        for index, record in enumerate(read_json_records(place)):
            builder.add(f"{place.stem}#{index}", partial(_item, index, record, root or place.parent))
        return builder.done()

`builder.add` takes an id and a function that makes the item. Where that raises DataError, the record is listed as bad
with the reason, and the rest of the file is still read. The function checks what it reads with `make_question`,
`gold_index` and `image_path`, which raise DataError in the words of every other format, and opens no image. A file that
is no such format at all raises DataError at once.

A format that is made, as `phantom.py`, has `make(options)` instead, and items that draw their images: `Item.drawn`.
"""

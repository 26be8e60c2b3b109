"""From a record of a data file to an item: tools that the formats in `sources` share."""

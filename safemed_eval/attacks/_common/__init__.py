"""What attacks are built of: their bases, what they get and return, and the ascent that several share."""

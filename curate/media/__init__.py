"""Pure codecs: bytes to numbers and back, no files, no network, no state."""

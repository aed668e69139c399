"""The pure core: no clock, no I/O, no logging, no randomness. Start reading at `tick.py`."""

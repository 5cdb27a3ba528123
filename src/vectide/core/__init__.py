"""Pure decisions: standard library only, no threads, no I/O, no clock, no logging, no randomness."""

"""What each data type needs from the exchange and how it is mapped: pure functions, no I/O."""

"""A simulated Bybit for the demo, the tests and the benchmarks."""

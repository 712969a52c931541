"""Differential fuzzing: random programs and packets on the golden model, the RTL and the running kernel."""

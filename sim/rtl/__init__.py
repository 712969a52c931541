"""The NIC compiled by Verilator into a shared library, driven by a native loop, many clocks and packets a call."""

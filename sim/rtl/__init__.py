"""The NIC compiled by Verilator into a shared library."""

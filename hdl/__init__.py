"""The NIC in Amaranth."""

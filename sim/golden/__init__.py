"""The reference NIC, clear before fast."""

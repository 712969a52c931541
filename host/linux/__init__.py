"""The running kernel as a device, through bpf(2)."""

"""bpfnic: a NIC that runs BPF programs."""

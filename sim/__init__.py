"""The golden model, the compiled RTL simulation, cocotb benches and comparison."""

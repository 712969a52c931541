"""FPGA boards, one file each."""

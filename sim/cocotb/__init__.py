"""Benches that touch every clock."""

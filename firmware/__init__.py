"""BPF code that runs on the card, as package data."""

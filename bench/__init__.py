"""Measures, printed and written to docs/results.md: `python -m bench`, from the root of the checkout."""

"""Damaged objects: everything that reads one ends in what it should, or in one line that names what is wrong."""

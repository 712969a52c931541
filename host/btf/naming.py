"""Names with a flavour: `task_struct___old` declares what is called `task_struct` where the program runs."""

import re


def essential(name: str) -> str:
    """A name without its flavour: what follows the last ___ between other letters."""
    flavoured = re.match(r"(.*[^_])___[^_]", name)
    return flavoured[1] if flavoured else name

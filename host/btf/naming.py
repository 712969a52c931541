"""Names: what C could have, and flavours: `task_struct___old` declares what is called `task_struct` where the program
runs."""

import re


def essential(name: str) -> str:
    """A name without its flavour: what follows the last ___ between other letters."""
    flavoured = re.match(r"(.*[^_])___[^_]", name)
    return flavoured[1] if flavoured else name


_LETTERS = r"A-Za-z\xc0-\xd6\xd8-\xf6\xf8-\xff"
_LONGEST = 512  # KSYM_NAME_LEN


def is_name(text: str) -> bool:
    """As C has names, and with dots and Latin-1's letters (Linux: btf_name_valid_identifier, and its ctype.h)."""
    return len(text) <= _LONGEST and bool(re.fullmatch(rf"[{_LETTERS}_.][{_LETTERS}0-9_.]*", text))


def is_section(text: str) -> bool:
    """As sections are called (Linux: btf_name_valid_section)."""
    return len(text) <= _LONGEST and bool(re.fullmatch(r"[ -~\xa0-\xff]+", text))

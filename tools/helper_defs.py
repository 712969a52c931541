"""Writes firmware/include/bpf/bpf_helper_defs.h from the rows of spec/helpers.py. Run it after changing a row."""

import re
from pathlib import Path

from bpfnic.spec.helpers import HELPERS

TARGET = Path(__file__).parent.parent / "firmware" / "include" / "bpf" / "bpf_helper_defs.h"

_HEAD = """\
/* SPDX-License-Identifier: BSD-2-Clause
 * Generated from spec/helpers.py by tools/helper_defs.py. Do not edit.
 *
 * Every helper of Linux 6.18 as a function pointer whose value is the helper's number: a call through it is what clang
 * turns into the call instruction. Include <linux/bpf.h> (or vmlinux.h) before, for __u32 and its kin.
 */
#ifndef BPFNIC_BPF_HELPER_DEFS_H
#define BPFNIC_BPF_HELPER_DEFS_H

"""


def header() -> str:
    """Text of the header: forward declarations of every structure, then one line a helper."""
    tags = sorted({tag for helper in HELPERS for tag in re.findall(r"struct (\w+)", helper.prototype)})
    structures = "".join(f"struct {tag};\n" for tag in tags)
    lines = []
    for helper in HELPERS:
        before, after = helper.prototype.split(f"bpf_{helper.name}(", 1)
        lines.append(f"static {before}(* const bpf_{helper.name})({after} = (void *){helper.number};\n")
    return _HEAD + structures + "\n" + "".join(lines) + "\n#endif\n"


if __name__ == "__main__":
    TARGET.write_text(header())

"""BTF, the types of a BPF object (Documentation/bpf/btf.rst of the kernel).

| module | what it does |
| --- | --- |
| kinds.py | what a type is: Kind, Type, Part |
| graph.py | reads types; names, sizes, and what lies behind a name: Btf |
| values.py | bytes to values and back, by type |
| encode.py | writes types |
| merge.py | several graphs in one, each type once |
| dump_raw.py, dump_c.py | prints them as bpftool does; dump_order.py, layout.py: in which order, with which padding |
| check.py, resolve.py | whether Linux would take them: each alone, and all together |
| sections.py | sections of variables as they are in memory |
| command.py | `bpfnic btf` |
| target.py, relocate.py, patch.py | CO-RE: to what a program is fitted, with which numbers, in which instructions |
| access.py, compatible.py, naming.py | how its types are found again there |
| extension.py | what is said about instructions, `.BTF.ext` |
"""

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import MODIFIERS, VOID, Kind, Part, Type

__all__ = ["MODIFIERS", "VOID", "Btf", "Kind", "Part", "Type"]

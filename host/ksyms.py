"""Kernel functions that a program declares itself, `extern … __ksym`, and calls by their BTF id.

A NIC has no kernel with numbered types, so that the id is the loader's affair: a function with the name of a helper is
that helper (`bpf_ktime_get_ns`, or `bpf_ktime_get_ns___old`: what follows ___ tells declarations apart), if its
prototype has as many parameters. A few others are routines of the runtime (spec/kfuncs.py, which says of the rest why
they aren't here).

Weak ones (`__weak`) are as in libbpf: where the function is missing, or isn't as declared, its address is 0, so that
bpf_ksym_exists() is false, and a call of it becomes `call btf 0`, which traps if it is reached after all.
"""

from collections.abc import Mapping

from bpfnic.host.btf import Btf, Kind, Type
from bpfnic.host.btf.naming import essential
from bpfnic.spec import helpers, kfuncs
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.helpers import Helper
from bpfnic.spec.programs import ProgramType

SECTION = ".ksyms"
ABSENT = 0
"""The BTF id, and the address, of a weak function that isn't there (kernel: add_kfunc_call)."""


class Missing(BpfnicError):
    """Nothing here is what a program declared."""


def declared(btf: Btf | None) -> Mapping[str, Type]:
    """By name what the object expects of a kernel: types of kind FUNC or VAR."""
    section = btf.find(Kind.DATASEC, SECTION) if btf else None
    if btf is None or section is None:
        return {}
    found = (btf[part.type] for part in section.parts)
    return {type.name: type for type in found}


def helper(btf: Btf, extern: Type) -> Helper:
    """The helper that a declaration means. Raises Missing: a variable, no helper of that name, other parameters."""
    if extern.kind is not Kind.FUNC:
        raise Missing(f"{extern.name!r} is a variable of the kernel, and here is none")
    name = essential(extern.name)
    found = helpers.BY_NAME.get(name.removeprefix("bpf_")) if name.startswith("bpf_") else None
    if found is None:
        why = kfuncs.REFUSED.get(name, "it isn't here, and no helper has this name")
        if name in kfuncs.callable(ProgramType.XDP):
            why = "NICs have it for XDP programs alone" if name in kfuncs.METADATA else "NICs alone have it"
        raise Missing(f"{extern.name!r} is a function of the kernel: {why}")
    parameters = len(btf.resolve(extern.target).parts)
    if parameters != len(found.parameters):
        raise Missing(f"{extern.name!r} is declared with {parameters} parameters; helper {found.name} "
                      f"has {len(found.parameters)}")  # fmt: skip
    return found

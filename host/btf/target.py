"""Where types come from: files, and what a program is to run on, to which CO-RE relocations fit it.

| name | types |
| --- | --- |
| `nic` | firmware/types/nic.bpf.c: contexts, packet headers, arguments of helpers |
| `kernel` | the running kernel's |
| a path | an object's, or a file of BTF alone |"""

import functools
from importlib import resources
from pathlib import Path

from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.kinds import Kind
from bpfnic.host.btf.rebase import rebase
from bpfnic.host.compile import compile_object
from bpfnic.host.elf import Elf
from bpfnic.spec.errors import BpfnicError

NIC, KERNEL = "nic", "kernel"
_TYPES = Path(str(resources.files("bpfnic.firmware"))) / "types" / "nic.bpf.c"
KERNELS = Path("/sys/kernel/btf/vmlinux")
"""The running kernel's; those of its modules lie beside them and build upon them."""


def target(name: str) -> Btf:
    """Raises BpfnicError: there are none, or no compiler for the NIC's."""
    if name == NIC:
        return _nics()
    return _opened(KERNELS if name == KERNEL else Path(name))


@functools.cache
def _nics() -> Btf:
    """Asked for once a process: the compiler's preprocessor runs to see whether they have changed."""
    return _opened(compile_object(_TYPES))


@functools.cache
def _opened(path: Path) -> Btf:
    """A kernel's are a million words: read once, and each when it is asked for."""
    return open_btf(path, whole=path != KERNELS)


def open_btf(path: Path, base: Btf | None = None, whole: bool = True) -> Btf:
    """The types of an ELF object, or of a file that is BTF and nothing else (/sys/kernel/btf/vmlinux), upon `base` or
    what they are known to build upon: the object's own .BTF.base, for a module the kernel's. `whole`: each is read now,
    so that what is wrong is said now."""
    data, where, elf = read_btf(path)
    if elf and (section := elf.section(".BTF.base")):
        distilled = Btf(section.data, f"{path}: .BTF.base").read_all()
        types = Btf(data, where, distilled).read_all()
        return rebase(types, distilled, base) if base else types
    if base is None and path.parent == KERNELS.parent and path != KERNELS:
        base = open_btf(KERNELS, whole=False)
    types = Btf(data, where, base)
    if not elf and not base:
        types.pointer_bytes = _long_bytes(types) or types.pointer_bytes
    return types.read_all() if whole else types


def _long_bytes(types: Btf) -> int:
    """Bytes of C's `long`, signed or not and in whatever order its words stand, which are those of a pointer where no
    object says how wide its machine is (libbpf: determine_ptr_size); 0 where there is none."""
    names = ["long"], ["int", "long"], ["long", "unsigned"], ["int", "long", "unsigned"]
    longs = (type.size for type in types if type.kind is Kind.INT and sorted(type.name.split()) in names)
    return next((size for size in longs if size in (4, 8)), 0)


def read_btf(path: Path) -> tuple[bytes, str, Elf | None]:
    """The bytes, where they are from, and the object that they stand in."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None
    if data[:4] != b"\x7fELF":
        return data, str(path), None
    elf = Elf(path)
    section = elf.section(".BTF")
    if section is None:
        raise BpfnicError(f"{path}: has no section .BTF: compile with -g")
    return section.data, f"{path}: .BTF", elf

"""C to BPF: compiles a `.bpf.c` file to an ELF object, once for each content.

The compiler is `clang` from PATH if it is version 18 or newer and has a BPF back end, else the one in the `ziglang`
wheel. Both see the same headers, none of the system's: the caller's folders, then clang's own, `firmware/include`
(libbpf's names), the kernel's user headers from the wheel, and last `firmware/include/posix`, which holds the few
C library headers that XDP sources name.

A compiled object is kept under the user's cache directory by the content of everything that was included, the options
and the compiler, so that the second time costs one run of the preprocessor.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from bpfnic.spec.errors import BpfnicError

CPUS = ("v1", "v2", "v3", "v4")
DEFAULT_CPU = "v3"
OLDEST_CLANG = 18


@dataclass(frozen=True)
class Compiler:
    """A C compiler for BPF: the command that comes before its arguments, a text that changes with its version, and the
    folders of the kernel's user headers."""

    command: tuple[str, ...]
    identity: str
    kernel_headers: tuple[Path, ...]


def compile_object(
    source: str | Path, *, cpu: str = DEFAULT_CPU, include: Sequence[str | Path] = (), define: Sequence[str] = ()
) -> Path:
    """Path of the object compiled from `source`, in the cache; never write to it.

    `cpu` is v1 to v4, `include` folders to search first, `define` texts as `NAME` or `NAME=VALUE`. clang's warnings go
    to standard error. Raises BpfnicError: no such file, no compiler, or clang's own error lines."""
    source = Path(source).absolute()
    if cpu not in CPUS:
        raise BpfnicError(f"--mcpu {cpu}: must be one of {', '.join(CPUS)}")
    if not source.is_file():
        raise BpfnicError(f"{source}: no such file")
    compiler = find_compiler()
    options = [
        "-O2",
        "-g",  # BTF, line info
        f"-mcpu={cpu}",
        "-fno-jump-tables",  # at v4 clang makes them with an opcode that neither RFC 9669 nor Linux 6.18 has
        "-Wno-unknown-warning-option",
        "-Wno-compare-distinct-pointer-types",  # `header + 1 > data_end`, as BPF sources have it
        *(f"-D{text}" for text in define),
        *(f"-I{Path(folder).absolute()}" for folder in include),
        *_header_options(compiler),
    ]
    # Every line that the compiler will read, comments too, for BTF's line info quotes them.
    text = _run(compiler, source, [*options, "-E", "-frewrite-includes", "-o", "-", str(source)])
    key = hashlib.sha256(b"\0".join([compiler.identity.encode(), "\0".join(options).encode(), text])).hexdigest()
    cached = _cache_directory() / f"{source.name.removesuffix('.c').removesuffix('.bpf')}-{key[:32]}.bpf.o"
    if not cached.is_file():
        with tempfile.TemporaryDirectory(dir=cached.parent) as folder:
            fresh = Path(folder) / "object.o"
            _run(compiler, source, [*options, "-c", "-o", str(fresh), str(source)])
            os.replace(fresh, cached)  # whole or not at all, whoever else compiles the same
    return cached


@functools.cache
def find_compiler() -> Compiler:
    """clang from PATH where it is new enough, else the wheel's. Raises BpfnicError where there is neither."""
    wheel = _wheel_folder()
    headers = tuple(wheel / "lib" / "libc" / "include" / folder for folder in ("x86-linux-any", "any-linux-any")) \
        if wheel else (Path(f"/usr/include/{os.uname().machine}-linux-gnu"), Path("/usr/include"))  # fmt: skip
    clang = shutil.which("clang")
    if clang and (version := _clang_version(clang)):
        return Compiler((clang, "-target", "bpfel", "-nostdlibinc"), version, headers)
    if wheel:
        # Hosted, so that memcpy of a small constant size is expanded as every BPF build expects.
        command = (str(wheel / "zig"), "cc", "-target", "bpfel-freestanding-none", "-fhosted", "-fbuiltin")
        return Compiler(command, f"ziglang {importlib.metadata.version('ziglang')}", headers)
    raise BpfnicError(f"no C compiler for BPF: install clang {OLDEST_CLANG} or newer, or `pip install ziglang`")


def _wheel_folder() -> Path | None:
    spec = importlib.util.find_spec("ziglang")
    return Path(spec.origin).parent if spec and spec.origin else None


def _clang_version(clang: str) -> str | None:
    """The line that clang calls its version, or None where it is too old or can't compile for BPF."""
    try:
        said = [subprocess.run([clang, option], capture_output=True, text=True, check=True, timeout=60).stdout
                for option in ("--version", "--print-targets")]  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.search(r"clang version (\d+)", said[0])
    if not number or int(number[1]) < OLDEST_CLANG or not re.search(r"\bbpfel\b", said[1]):
        return None
    return said[0].splitlines()[0]


def _header_options(compiler: Compiler) -> list[str]:
    ours = Path(str(resources.files("bpfnic.firmware"))) / "include"
    later = (*compiler.kernel_headers, ours / "posix", ours / "bpf")  # the last for #include "bpf_helpers.h"
    return [f"-isystem{ours}", *(option for folder in later for option in ("-idirafter", str(folder)))]


def _run(compiler: Compiler, source: Path, arguments: list[str]) -> bytes:
    cache = str(_cache_directory().parent / "zig")  # zig keeps what it made in folders of its own
    environment = os.environ | {"ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
    try:
        done = subprocess.run([*compiler.command, *arguments], capture_output=True, env=environment)
    except OSError as error:
        raise BpfnicError(f"{compiler.command[0]}: {error.strerror}") from None
    lines = done.stderr.decode(errors="replace").rstrip()
    if done.returncode:
        raise BpfnicError(f"{lines}\n{source}: not compiled")
    if lines and "-c" in arguments:
        print(lines, file=sys.stderr)
    return done.stdout


def _cache_directory() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bpfnic" / "objects"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BpfnicError(f"{folder}: {error.strerror}; set XDG_CACHE_HOME to a folder that can be written") from None
    return folder

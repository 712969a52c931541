"""`bpfnic btf`: bpftool's grammar of bare words, each of which may be shortened.

    btf dump file FILE [format raw|c] [unsorted] [root_id NUMBER]…
    btf check file FILE"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.btf.check import check
from bpfnic.host.btf.dump_c import dump_c
from bpfnic.host.btf.dump_raw import dump_raw
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.sections import laid_out
from bpfnic.host.btf.target import open_btf, read_btf
from bpfnic.spec.errors import BpfnicError

_FORMATS = ("raw", "c")


@dataclass
class Request:
    """What the words say. `format`: "raw" or "c"; `sort`: arrange types in C by name; `roots`: these types alone."""

    file: Path
    format: str = "raw"
    sort: bool = True
    roots: list[int] = field(default_factory=list)


class Refused(BpfnicError):
    """Linux would not take the types."""


def parse(words: tuple[str, ...]) -> Request:
    """Raises BpfnicError naming the word that can't be used."""
    rest = iter(words)
    if not _is(next(rest, ""), "file"):
        raise BpfnicError("btf dump: begins with `file FILE`; bpfnic has no other sources")
    request = Request(Path(_after("file", rest)))
    for word in rest:
        if _is(word, "format"):
            request.format = _after("format", rest)
            if request.format not in _FORMATS:
                raise BpfnicError(f"btf dump: format {request.format!r} must be raw or c")
        elif _is(word, "root_id"):
            number = _after("root_id", rest)
            if not number.isdecimal():
                raise BpfnicError(f"btf dump: root_id {number!r} is no number")
            request.roots.append(int(number))
        elif _is(word, "unsorted"):
            request.sort = False
        else:
            raise BpfnicError(f"btf dump: {word!r} is none of format, root_id, unsorted")
    return request


def dump(request: Request, base: Path | None = None) -> Iterator[str]:
    """The text, a piece at a time. Raises BpfnicError naming the file."""
    btf = open_btf(request.file, open_btf(base) if base else None)
    if unknown := [number for number in request.roots if not 0 < number < len(btf)]:
        raise BpfnicError(f"{request.file}: root_id {unknown[0]}: types are 1 to {len(btf) - 1}")
    if request.format == "c":
        return dump_c(btf, request.roots, request.sort)
    return dump_raw(btf, request.roots)


def file_of(words: tuple[str, ...]) -> Path:
    """The file that `btf check` names."""
    match words:
        case (word, file) if _is(word, "file"):
            return Path(file)
    raise BpfnicError("btf check: takes `file FILE`")


def checked(path: Path) -> str:
    """What Linux would say of a file's types; of an object's as a loader lays out its variables. Raises Refused that
    says why not, and BpfnicError for what can't be read."""
    data, where, elf = read_btf(path)
    if elf:
        data = encode(list(laid_out(list(Btf(data, where).read_all()), elf)))
    try:
        check(data, where)
    except BpfnicError as error:
        raise Refused(str(error)) from None
    return f"{where}: Linux takes these types"


def _is(word: str, whole: str) -> bool:
    return bool(word) and whole.startswith(word)


def _after(word: str, rest: Iterator[str]) -> str:
    for following in rest:
        return following
    raise BpfnicError(f"btf dump: nothing follows {word}")

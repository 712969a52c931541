"""`bpfnic btf`: bpftool's grammar of bare words, each of which may be shortened.

    btf dump SOURCE [format raw|c] [unsorted] [root_id NUMBER]…
    btf check file FILE

SOURCE: file FILE, or of the running kernel id ID, prog PROG, map MAP [key|value|kv|all]; PROG and MAP: id ID, name
NAME, tag TAG (of a program), pinned FILE."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from bpfnic.host.btf.check import check
from bpfnic.host.btf.dump_c import dump_c
from bpfnic.host.btf.dump_raw import dump_json, dump_raw
from bpfnic.host.btf.encode import encode
from bpfnic.host.btf.graph import Btf
from bpfnic.host.btf.sections import laid_out
from bpfnic.host.btf.target import KERNELS, open_btf, read_btf
from bpfnic.host.linux import objects
from bpfnic.spec.errors import BpfnicError

_FORMATS = ("raw", "c")


_SOURCES = ("file", "id", "prog", "map")
_SELECTORS = {"prog": ("id", "name", "tag", "pinned"), "map": ("id", "name", "pinned")}
_OF_MAP = {"key": ("key",), "value": ("value",), "kv": ("key", "value"), "all": ()}


@dataclass
class Request:
    """What the words say. `source`: one of _SOURCES; of a program or map chosen by `selector`, otherwise "", `value`;
    `of_map`: types of a map alone, its key, its value. `format`: "raw" or "c"; `sort`: arrange types in C by name;
    `roots`: these types alone."""

    source: str
    value: str
    selector: str = ""
    of_map: tuple[str, ...] = ()
    format: str = "raw"
    sort: bool = True
    roots: list[int] = field(default_factory=list)


class Refused(BpfnicError):
    """Linux would not take the types."""


def parse(words: tuple[str, ...]) -> Request:
    """Raises BpfnicError naming the word that can't be used."""
    left = list(words)
    source = _one_of(left, _SOURCES, "begins with")
    if selectors := _SELECTORS.get(source):
        selector = _one_of(left, selectors, f"{source} is chosen by")
        request = Request(source, _value(left, selector), selector)
    else:
        request = Request(source, _value(left, source))
    if source == "map" and left and (part := _named(left[0], tuple(_OF_MAP))):
        request.of_map = _OF_MAP[part]
        left.pop(0)
    rest = iter(left)
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


def dump(request: Request, base: Path | None = None, as_json: bool = False, pretty: bool = False) -> Iterator[str]:
    """The text, a piece at a time; `pretty`: JSON, a line for each member. Raises BpfnicError naming the source."""
    as_json = as_json or pretty
    below = open_btf(base) if base else None
    roots = request.roots
    if request.source == "file":
        path = Path(request.value)
        btf = open_btf(path, below)
    else:
        btf, chosen = _of_kernel(request, below)
        roots = roots or chosen
    if unknown := [number for number in roots if not 0 < number < len(btf)]:
        raise BpfnicError(f"{btf.where}: root_id {unknown[0]}: types are 1 to {len(btf) - 1}")
    if request.format == "c" and as_json:
        raise BpfnicError("btf dump: C is no JSON: leave out --json and --pretty, or say `format raw`")
    if request.format == "c":
        return dump_c(btf, roots, request.sort)
    return dump_json(btf, roots, pretty) if as_json else dump_raw(btf, roots)


def _of_kernel(request: Request, base: Btf | None) -> tuple[Btf, list[int]]:
    """The types that the kernel holds, and which of them are meant, none for all; those of a module upon its own."""
    what = f"{request.source} {request.selector} {request.value}".replace("  ", " ")
    try:
        number, roots = int(request.value) if request.source == "id" else 0, []
        if request.source in _SELECTORS:
            found = objects.find(request.source, request.selector, request.value)
            if len(found) != 1:
                none = f"the kernel has no such {request.source}"
                why = f"{len(found)} of them: choose one by its id" if found else none
                raise BpfnicError(f"btf dump: {what}: {why}")
            number = found[0].btf
            roots = [each for each in (getattr(found[0], part) for part in request.of_map) if each]
        if not number:
            raise BpfnicError(f"btf dump: {what}: was loaded without types")
        held = objects.btf(number)
    except OSError as error:
        raise BpfnicError(f"btf dump: {what}: {error.strerror or error}") from None
    if base is None and held.of_kernel and held.name != "vmlinux":
        base = open_btf(KERNELS, whole=False)
    where = f"BTF {number} of the kernel"
    return Btf(held.data, where, base).read_all(), roots


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


def _named(word: str, names: tuple[str, ...]) -> str:
    """Which of the names a word, that may be shortened, stands for; "" for none."""
    return next((name for name in names if _is(word, name)), "")


def _one_of(left: list[str], names: tuple[str, ...], role: str) -> str:
    """Takes the next word, which is one of the names."""
    if found := _named(left[0] if left else "", names):
        left.pop(0)
        return found
    raise BpfnicError(f"btf dump: {role} {', '.join(names[:-1])} or {names[-1]}"
                      + (f", not {left[0]!r}" if left else ""))  # fmt: skip


def _value(left: list[str], word: str) -> str:
    """Takes what follows a word: a number behind id, hexadecimal digits behind tag."""
    if not left:
        raise BpfnicError(f"btf dump: nothing follows {word}")
    value = left.pop(0)
    if word == "id" and not (value.isdecimal() and int(value) < 1 << 32):
        raise BpfnicError(f"btf dump: id {value!r} is no number")
    if word == "tag" and not re.fullmatch("[0-9a-fA-F]{16}", value):
        raise BpfnicError(f"btf dump: tag {value!r} is not 16 hexadecimal digits")
    return value


def _after(word: str, rest: Iterator[str]) -> str:
    for following in rest:
        return following
    raise BpfnicError(f"btf dump: nothing follows {word}")

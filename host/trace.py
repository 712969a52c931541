"""What programs print with bpf_trace_printk and bpf_trace_vprintk: text made of the records that the runtime's
routines send (firmware/runtime/trace.h), by the rules of bstr_printf() in the kernel's lib/vsprintf.c. A pointer is
printed as it is: its numbers are the NIC's, and no secret as the kernel's are.
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from bpfnic.host.eventmaps import EventMap, Record

MAP = "trace_records"
_LONGEST = 1023  # characters of a line (MAX_BPRINTF_BUF)
_CONVERSION = re.compile(
    r"%(?:(?P<percent>%)|(?P<flags>[0+\- ]*)(?P<width>[1-9][0-9]*)?"
    r"(?:p(?P<pointer>[KxsSB]|[iI][46]|[ku]s)?(?(pointer)[0-9A-Za-zÀ-ÖØ-öø-ÿ]*)|(?P<number>l{0,2}[diuxX])|(?P<letter>[sc])|p))"
)


@dataclass(frozen=True)
class Line:
    """Text that a program printed on a CPU, at so many nanoseconds of the NIC's clock. What isn't UTF-8 is shown as
    \\x and two digits."""

    cpu: int
    time_ns: int
    text: str

    def __str__(self) -> str:
        """As in Linux's trace_pipe, but for the task, which there is none of."""
        seconds, micros = divmod(self.time_ns // 1000, 10**6)
        return f"[{self.cpu:03}] {seconds}.{micros:06}: bpf_trace_printk: {self.text}"


def take(records: EventMap) -> list[Line]:
    """The lines that came and that nobody has taken yet, the oldest first."""
    lines = [_line(record) for record in records.records]
    records.records.clear()
    return lines


def _line(record: Record) -> Line:
    (time_ns,) = struct.unpack_from("<Q", record)
    end = record.index(0, 8)
    arguments = _Arguments(record[end + 1 :])
    text = _CONVERSION.sub(arguments.put, record[8:end].decode("latin-1"))
    return Line(record.cpu, time_ns, text[:_LONGEST].encode("latin-1").decode(errors="backslashreplace"))


class _Arguments:
    """Takes what conversions print, one after the other, from a record's bytes."""

    def __init__(self, data: bytes):
        self._data = data

    def _take(self, size: int) -> bytes:
        taken, self._data = self._data[:size], self._data[size:]
        return taken

    def _number(self) -> int:
        return int.from_bytes(self._take(8), "little")

    def _string(self) -> str:
        text = self._take(self._data.index(0))
        self._take(1)
        return text.decode("latin-1")

    def put(self, found: re.Match[str]) -> str:
        """The text of a conversion."""
        if found["percent"]:
            return "%"
        flags, width, pointer = found["flags"], int(found["width"] or 0), found["pointer"] or ""
        if pointer[:1] in ("i", "I"):
            return self._address(pointer)
        if pointer[:1] in ("k", "u"):
            return self._string()
        if found["letter"] == "s":
            return _padded(self._string(), flags.replace("0", ""), width)
        if found["letter"] == "c":
            return _padded(chr(self._number() & 0xFF), flags.replace("0", ""), width)
        if found["number"]:
            return _number(self._number(), found["number"], flags, width)
        value = self._number()
        if pointer in ("s", "S", "B"):
            return _padded(f"{value:#x}", flags.replace("0", ""), width)
        return _padded(f"{value:x}", flags, width) if width else f"{value:016x}"

    def _address(self, kind: str) -> str:
        leading = kind[0] == "i"
        if kind[1] == "4":
            address = IPv4Address(self._take(4))
            return ".".join(f"{byte:03}" for byte in address.packed) if leading else str(address)
        text = IPv6Address(self._take(16)).exploded
        return text.replace(":", "") if leading else text


def _number(value: int, conversion: str, flags: str, width: int) -> str:
    bits, letter = (64 if "l" in conversion else 32), conversion[-1]
    value &= (1 << bits) - 1
    if letter in "xX":
        return _padded(format(value, letter), flags, width)
    sign = ""
    if letter in "di":
        negative = value >> bits - 1
        value = (1 << bits) - value if negative else value
        sign = "-" if negative else "+" if "+" in flags else " " if " " in flags else ""
    return _padded(str(value), flags, width, sign)


def _padded(text: str, flags: str, width: int, sign: str = "") -> str:
    if "-" in flags:
        return (sign + text).ljust(width)
    return sign + text.rjust(width - len(sign), "0") if "0" in flags else (sign + text).rjust(width)

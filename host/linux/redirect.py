"""Learns where a program redirects its packet, which BPF_PROG_TEST_RUN does not tell.

TEST_RUN returns XDP_REDIRECT and leaves it at that: bpf_redirect() only notes its target in the CPU's
`bpf_redirect_info`, and xdp_do_redirect(), which looks the target up and fails on an unknown one, runs on a real
receive path alone. So each `call bpf_redirect` of a program becomes a call of a function appended to it, which takes
the place of one instruction and moves no other. The function notes the target in a map where the kernel's helper would
note it, that is if the flags are zero (bpf_xdp_redirect(), net/core/filter.c), and then calls the helper.
"""

from __future__ import annotations

import os
import struct

from bpfnic.host.linux import bpf
from bpfnic.spec import helpers
from bpfnic.spec.assembly import assemble
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import MapType

_REDIRECT = helpers.BY_NAME["redirect"].number
_CALL = assemble(f"call {_REDIRECT}")  # no second half of a wide instruction looks like it: there the opcode is 0

_KEY = bytes(4)
_RECORD = struct.Struct("=II")  # ifindex, 1 if bpf_redirect noted one


class RedirectRecord:
    """The map that a program's last redirect target is noted in. Raises OSError as bpf(2) does."""

    def __init__(self) -> None:
        self.fd = bpf.map_create(MapType.ARRAY, 4, _RECORD.size, 1, name="redirect")

    def close(self) -> None:
        """Gives the map back."""
        os.close(self.fd)

    def clear(self) -> None:
        """Forgets the target, to be done before each packet, as the kernel does after each (xdp_do_redirect())."""
        bpf.map_update(self.fd, _KEY, bytes(_RECORD.size))

    def target(self) -> int | None:
        """The ifindex that bpf_redirect() took since `clear`, or None if it took none."""
        ifindex, noted = _RECORD.unpack(bpf.map_lookup(self.fd, _KEY, _RECORD.size))
        return ifindex if noted else None

    def instrument(self, code: bytes) -> bytes:
        """The program with its calls of bpf_redirect noted here; unchanged if it has none.

        The appended function has no stack, but the kernel counts a frame for it: a program that uses all of its 512
        bytes where it redirects is refused with that reason."""
        end = len(code) // SLOT_BYTES
        slots = [code[at : at + SLOT_BYTES] for at in range(0, len(code), SLOT_BYTES)]
        calls = [number for number, slot in enumerate(slots) if slot == _CALL]
        for number in calls:
            slots[number] = assemble(f"call pc{end - number - 1:+}")
        return b"".join(slots) + self._function() if calls else code

    def _function(self) -> bytes:
        """The appended function: r1 is the ifindex, r2 the flags, r0 what bpf_redirect returns."""
        return assemble(f"""
            if r2 != 0 goto redirect
            r3 = map_val(map_by_fd({self.fd})) + 0 ll
            *(u32 *)(r3 + 0) = w1
            *(u32 *)(r3 + 4) = 1
        redirect:
            call {_REDIRECT}
            exit
        """)

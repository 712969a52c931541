"""Learns where a program redirects its packet, which BPF_PROG_TEST_RUN does not tell.

TEST_RUN returns XDP_REDIRECT and leaves it at that: bpf_redirect() and bpf_redirect_map() only note a target in the
CPU's `bpf_redirect_info`, and xdp_do_redirect(), which looks it up and fails on an unknown one, runs on a real receive
path alone. So each call of one of them becomes a call of a function appended to the program, which takes the place of
one instruction and moves no other. The function notes the target in a map where the kernel's helper would note it
(bpf_xdp_redirect() if the flags are zero, __bpf_xdp_redirect_map() if it finds an entry, while a miss forgets what was
noted; net/core/filter.c), and calls the helper.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from typing import NamedTuple

from bpfnic.host.linux import bpf
from bpfnic.spec import helpers
from bpfnic.spec.assembly import assemble
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import DEVMAPS, REDIRECT_ACTION, MapType, RedirectFlag
from bpfnic.spec.programs import BPF_F_INGRESS, ProgramType, XdpAction

_REDIRECT = helpers.BY_NAME["redirect"].number
_REDIRECT_MAP = helpers.BY_NAME["redirect_map"].number

_KEY = bytes(4)
_RECORD = struct.Struct("=II")  # ifindex or index, and one of:
_NOTHING, _IFINDEX, _ENTRY, _BROADCAST = range(4)  # _ENTRY + n * _MAP: in the map with file descriptor n
_MAP = 4
_INGRESS = _IFINDEX + _MAP  # of a sched_cls program, with BPF_F_INGRESS

class Target(NamedTuple):
    """An ifindex, or an index in the map with a file descriptor `map`. `broadcast`: to all of the map. `ingress`: as if
    the packet came from there."""

    number: int
    map: int | None = None
    broadcast: bool = False
    ingress: bool = False


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

    def target(self) -> Target | None:
        """What the helpers took since `clear`, or None if they took none."""
        number, word = _RECORD.unpack(bpf.map_lookup(self.fd, _KEY, _RECORD.size))
        map_fd, kind = divmod(word, _MAP)
        if kind in (_NOTHING, _IFINDEX):
            return None if kind == _NOTHING else Target(number, ingress=word == _INGRESS)
        return Target(number, map_fd, kind == _BROADCAST)

    def instrument(
        self, code: bytes, maps: Sequence[tuple[MapType, int]], program_type: ProgramType = ProgramType.XDP
    ) -> bytes:
        """The program with its calls noted here; unchanged if it has none. `maps`: type and file descriptor of each
        redirect map that it uses.

        The appended functions have no stack, but the kernel counts a frame for them: a program that uses all of its 512
        bytes where it redirects is refused with that reason."""
        redirect = self._of_redirect() if program_type is ProgramType.XDP else self._of_tc_redirect()
        for number, function in ((_REDIRECT, redirect), (_REDIRECT_MAP, self._of_redirect_map(maps))):
            call = assemble(f"call {number}")  # no second half of a wide instruction is like it: there the opcode is 0
            end = len(code) // SLOT_BYTES
            slots = [code[at : at + SLOT_BYTES] for at in range(0, len(code), SLOT_BYTES)]
            calls = [slot for slot, found in enumerate(slots) if found == call]
            for slot in calls:
                slots[slot] = assemble(f"call pc{end - slot - 1:+}")
            if calls:
                code = b"".join(slots) + function
        return code

    def _of_redirect(self) -> bytes:
        """The appended function: r1 is the ifindex, r2 the flags, r0 what bpf_redirect returns."""
        return assemble(f"""
            if r2 != 0 goto redirect
            r3 = map_val(map_by_fd({self.fd})) + 0 ll
            *(u32 *)(r3 + 0) = w1
            *(u32 *)(r3 + 4) = {_IFINDEX}
        redirect:
            call {_REDIRECT}
            exit
        """)

    def _of_tc_redirect(self) -> bytes:
        """The same of a sched_cls program: bpf_redirect() knows BPF_F_INGRESS too, and forgets nothing where it refuses
        a flag."""
        return assemble(f"""
            r3 = r2
            r3 &= {~BPF_F_INGRESS}
            if r3 != 0 goto redirect
            r3 = map_val(map_by_fd({self.fd})) + 0 ll
            *(u32 *)(r3 + 0) = w1
            *(u32 *)(r3 + 4) = {_IFINDEX}
            if r2 == 0 goto redirect
            *(u32 *)(r3 + 4) = {_INGRESS}
        redirect:
            call {_REDIRECT}
            exit
        """)

    def _of_redirect_map(self, maps: Sequence[tuple[MapType, int]]) -> bytes:
        """The appended function: r1 is the map, r2 the index, r3 the flags, r0 what bpf_redirect_map returns.

        r6 keeps the index, r7 the flags, r8 says which map, r9 has the flags that no such map knows."""
        which = "".join(
            f"""
            r5 = map_by_fd({fd}) ll
            if r1 != r5 goto not_{fd}
            r8 = {_ENTRY + fd * _MAP}
            r9 = {~(REDIRECT_ACTION | (sum(RedirectFlag) if kind in DEVMAPS else 0))}
            not_{fd}:"""
            for kind, fd in maps
        )
        return assemble(f"""
            r6 = r2
            r7 = r3
            r8 = 0
            r9 = {~REDIRECT_ACTION}
            {which}
            call {_REDIRECT_MAP}
            if r0 == {XdpAction.XDP_REDIRECT.value} goto note
            r9 &= r7
            if r9 != 0 goto done
            r8 = {_NOTHING}
        note:
            r7 &= {RedirectFlag.BROADCAST.value}
            if r7 == 0 goto single
            r8 += {_BROADCAST - _ENTRY}
        single:
            r3 = map_val(map_by_fd({self.fd})) + 0 ll
            *(u32 *)(r3 + 0) = w6
            *(u32 *)(r3 + 4) = w8
        done:
            exit
        """)

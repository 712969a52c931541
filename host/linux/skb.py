"""Runs a sched_cls program under BPF_PROG_TEST_RUN as the kernel's receive path would.

TEST_RUN makes a `struct sk_buff` of a frame's bytes and runs the program on it. What the receive path does before and
behind that is done here, by a function put in front of the program, which calls it:

- A VLAN tag is taken out of the frame (skb_vlan_untag()): the frame is given without it, and bpf_skb_vlan_push() puts
  it where the kernel keeps a tag that is no part of the frame.
- A frame's kind is that of its destination: to one host (this one, whatever address the link has), to some, to all.
- Behind the program the function notes the tag that the packet has then, which leaves in front of the rest.

A program that is reached by a tail call has that function too; its first part is done once a packet.
"""

from __future__ import annotations

import os
import struct

from bpfnic.host.linux import bpf
from bpfnic.spec import helpers, programs
from bpfnic.spec.assembly import assemble
from bpfnic.spec.instruction import SLOT_BYTES
from bpfnic.spec.maps import MapType

_CHANGE_TYPE, _VLAN_PUSH = (helpers.BY_NAME[name].number for name in ("skb_change_type", "skb_vlan_push"))
_OFFSET = {field.name: field.offset for field in programs.SK_BUFF}

_KEY = bytes(4)
# To be done: a packet type, plus 1, and the tag to push (its protocol as it stands in the frame, 0 for none); the tag
# behind the program: present or not, protocol likewise, and what follows it.
_RECORD = struct.Struct("=3I3I")
_HOST, _BROADCAST, _MULTICAST = 0, 1, 2  # linux/if_packet.h

_TAG_AT = 12  # behind both addresses
_TAG_BYTES = 4
_TPIDS = (b"\x81\x00", b"\x88\xa8")  # ETH_P_8021Q, ETH_P_8021AD
_ETH_HLEN = 14


class SkbRecord:
    """What the function in front of programs is told, and what it notes. Raises OSError as bpf(2) does."""

    def __init__(self) -> None:
        self.fd = bpf.map_create(MapType.ARRAY, 4, _RECORD.size, 1, name="skb")

    def close(self) -> None:
        """Gives the map back."""
        os.close(self.fd)

    def instrument(self, code: bytes) -> bytes:
        """The program with the function in front; `slots` of it."""
        return self._function() + code

    @property
    def slots(self) -> int:
        """How many slots the function takes."""
        return len(self._function()) // SLOT_BYTES

    def receive(self, frame: bytes) -> bytes:
        """The frame as TEST_RUN is to get it."""
        kind = _HOST
        if frame[0] & 1:
            kind = _BROADCAST if frame[:6] == bytes([0xFF] * 6) else _MULTICAST
        protocol = tci = 0
        if frame[_TAG_AT:][:2] in _TPIDS and len(frame) >= _ETH_HLEN + _TAG_BYTES:
            protocol = int.from_bytes(frame[_TAG_AT:][:2], "little")
            tci = int.from_bytes(frame[_TAG_AT + 2 :][:2], "big")
            frame = frame[:_TAG_AT] + frame[_TAG_AT + _TAG_BYTES :]
        bpf.map_update(self.fd, _KEY, _RECORD.pack(kind + 1, protocol, tci, 0, 0, 0))
        return frame

    def send(self, frame: bytes) -> bytes:
        """The frame as it leaves, of what TEST_RUN gave back."""
        *_, present, protocol, tci = _RECORD.unpack(bpf.map_lookup(self.fd, _KEY, _RECORD.size))
        if not present:
            return frame
        tag = protocol.to_bytes(2, "little") + tci.to_bytes(2, "big")
        return frame[:_TAG_AT] + tag + frame[_TAG_AT:]

    def _function(self) -> bytes:
        """r6 is the context, r7 the record."""
        return assemble(f"""
            r6 = r1
            r7 = map_val(map_by_fd({self.fd})) + 0 ll
            r2 = *(u32 *)(r7 + 0)
            if r2 == 0 goto push
            *(u32 *)(r7 + 0) = 0
            r2 -= 1
            call {_CHANGE_TYPE}
        push:
            r2 = *(u32 *)(r7 + 4)
            if r2 == 0 goto begin
            *(u32 *)(r7 + 4) = 0
            r3 = *(u32 *)(r7 + 8)
            r1 = r6
            call {_VLAN_PUSH}
        begin:
            r1 = r6
            call program
            r1 = *(u32 *)(r6 + {_OFFSET["vlan_present"]})
            *(u32 *)(r7 + 12) = w1
            r1 = *(u32 *)(r6 + {_OFFSET["vlan_proto"]})
            *(u32 *)(r7 + 16) = w1
            r1 = *(u32 *)(r6 + {_OFFSET["vlan_tci"]})
            *(u32 *)(r7 + 20) = w1
            exit
        program:
        """)

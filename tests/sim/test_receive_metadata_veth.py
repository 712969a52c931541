"""What the running kernel answers where a device-bound program calls the receive metadata functions on a veth, whose
driver has all three: which errors there are and when, and what byte order a tag has. Its hash is no Toeplitz hash, and
its clock another one."""

import ctypes
import os
import socket
from pathlib import Path

import pytest

import bpfnic
from bpfnic.host.btf import Btf, Kind
from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace, link_name
from bpfnic.spec.assembly import assemble
from bpfnic.spec.programs import ProgramType
from tests.sim import received
from tests.sim.test_receive_metadata import PROGRAM, told

pytestmark = pytest.mark.linux

NEAR, FAR = 2, 102
LINK_CREATE, ATTACH_XDP, TCX_EGRESS, DEV_BOUND_ONLY, DRIVER_MODE = 28, 37, 47, 1 << 6, 1 << 2
ARRAY = 2
TAG = (0x8100, 0x4123)


class LinkCreate(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in ("prog_fd", "target_ifindex", "attach_type", "flags")]


def functions() -> dict[str, int]:
    """The BTF ids of the running kernel's functions."""
    btf = Btf(Path("/sys/kernel/btf/vmlinux").read_bytes())
    names = {f"bpf_xdp_metadata_rx_{what}" for what in ("timestamp", "hash", "vlan_tag")}
    return {name: number for number, (kind, name) in btf.headings() if kind is Kind.FUNC and name in names}


def program(ids: dict[str, int], results: int) -> bytes:
    """Writes what the functions answer into the map, of 48 bytes."""
    text = f"""
    r6 = r1
    r1 = map_by_fd({results:#x}) ll
    r2 = r10
    r2 += -8
    r3 = 0
    *(u32 *)(r10 - 8) = r3
    call 1
    if r0 == 0 goto out
    r7 = r0
    r1 = r6
    r2 = r7
    r2 += 24
    call btf {ids["bpf_xdp_metadata_rx_timestamp"]}
    *(u32 *)(r7 + 0) = r0
    r1 = r6
    r2 = r7
    r2 += 12
    r3 = r7
    r3 += 16
    call btf {ids["bpf_xdp_metadata_rx_hash"]}
    *(u32 *)(r7 + 4) = r0
    r1 = r6
    r2 = r7
    r2 += 20
    r3 = r7
    r3 += 22
    call btf {ids["bpf_xdp_metadata_rx_vlan_tag"]}
    *(u32 *)(r7 + 8) = r0
    r1 = 1
    *(u32 *)(r7 + 32) = r1
out:
    r0 = 1
    exit
"""
    return assemble(text)


def load(code: bytes, ifindex: int) -> int:
    """A program that is bound to a device."""
    attribute = bpf._ProgLoad(ProgramType.XDP, len(code) // 8, bpf._address(code), bpf._address(b"GPL"))
    attribute.prog_flags, attribute.prog_ifindex = DEV_BOUND_ONLY, ifindex
    log = ctypes.create_string_buffer(1 << 16)
    attribute.log_level, attribute.log_size, attribute.log_buf = 1, len(log), ctypes.addressof(log)
    try:
        return bpf.call(bpf._PROG_LOAD, attribute)
    except OSError as error:
        raise AssertionError(log.value.decode()) from error


class Veth:
    """The program at one end of a veth pair, and a socket at the other."""

    def __init__(self):
        self._namespace = Namespace([NEAR, FAR])
        self._results = bpf.map_create(ARRAY, 4, 48, 1)
        self._namespace.call(self._enter)

    def _enter(self):
        near, far = link_name(NEAR), link_name(FAR)
        for link in (near, far):
            os.system(f"ip link set dev {link} addrgenmode none up")
        self._program = load(program(functions(), self._results), NEAR)
        self._links = [bpf.call(LINK_CREATE, LinkCreate(self._program, NEAR, ATTACH_XDP, DRIVER_MODE))]
        self._wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._wire.bind((far, 0))

    def tag(self):
        """From now on what is sent gets a tag, which isn't in the frame, as if a driver had stripped it."""
        self._namespace.call(self._tag)

    def _tag(self):
        tags, _ = bpf.prog_load(ProgramType.SCHED_CLS, TAGS)
        self._links += [bpf.call(LINK_CREATE, LinkCreate(tags, FAR, TCX_EGRESS)), tags]

    def tell(self, frame: bytes) -> bytes:
        """What the program is told of a frame."""
        bpf.map_update(self._results, bytes(4), bytes(48))
        self._wire.send(frame)
        for _ in range(1000):
            told = bpf.map_lookup(self._results, bytes(4), 48)
            if told[32]:
                return told
            os.sched_yield()
        raise AssertionError("no frame came")

    def close(self):
        self._wire.close()
        for fd in (*self._links, self._program, self._results):
            os.close(fd)
        self._namespace.close()


TAGS = assemble(f"""
    r2 = {socket.htons(TAG[0])}
    r3 = {TAG[1]}
    call 18
    r0 = -1
    exit
""")
FRAME = received.build("10.0.0.1", "10.0.0.2", received.TCP, b"\1\2\3\4")
TAGGED = received.build("10.0.0.1", "10.0.0.2", received.TCP, b"\1\2\3\4", tags=(TAG,))


@pytest.fixture
def ours(build):
    with bpfnic.Nic("golden") as nic:
        program = nic.load(build(PROGRAM))
        yield lambda frame: program.test_run(frame).data


@pytest.fixture
def veth():
    veth = Veth()
    yield veth
    veth.close()


def test_errors_are_the_kernels(veth, ours):
    theirs = veth.tell(FRAME.frame)
    assert theirs[:12] == ours(FRAME.frame)[:12]
    assert told(theirs)[1] is None and told(theirs)[0] is not None


def test_a_tag_that_was_stripped(veth, ours):
    """TPID in network byte order, TCI in the host's."""
    veth.tag()
    theirs, mine = veth.tell(FRAME.frame), ours(TAGGED.frame)
    assert theirs[:12] == mine[:12] and theirs[20:24] == mine[20:24]
    assert told(theirs)[1] == told(mine)[1] == TAG


def test_where_they_differ(veth, ours):
    """A tag in the frame, which the NIC tells of and leaves there; a frame without IP addresses, which the kernel gives
    a hash of type XDP_RSS_TYPE_NONE."""
    theirs, mine = told(veth.tell(TAGGED.frame)), told(ours(TAGGED.frame))
    assert theirs[1] is None and mine[1] == TAG
    theirs, mine = told(veth.tell(bytes(64))), told(ours(bytes(64)))
    assert theirs[0] is not None and theirs[0][1] == 0 and mine[0] is None

"""The system calls: each expected value is what the program or map is written to give, from the RFC or the man page."""

import errno
import os
import socket
import struct
import subprocess
import sys

import pytest

from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace
from bpfnic.host.linux.redirect import RedirectRecord, Target
from bpfnic.spec.assembly import assemble
from bpfnic.spec.maps import MapFlag, MapType, UpdateFlag
from bpfnic.spec.programs import ProgramType, XdpAction

pytestmark = pytest.mark.linux

KEY0, KEY1, KEY2 = (struct.pack("=I", key) for key in range(3))


@pytest.fixture
def closing():
    """Takes file descriptors and closes them after the test."""
    open_fds = []
    yield lambda fd: open_fds.append(fd) or fd
    for fd in open_fds:
        os.close(fd)


@pytest.fixture(scope="module")
def namespace():
    space = Namespace((7, 9, 300))
    yield space
    space.close()


def xdp(closing, text, record=None):
    code = assemble(text)
    return closing(bpf.prog_load(ProgramType.XDP, record.instrument(code, ()) if record else code)[0])


def xdp_md(size, ingress=0):
    return struct.pack("=IIIIII", 0, size, 0, ingress, 0, 0)


def test_array_map(closing):
    fd = closing(bpf.map_create(MapType.ARRAY, 4, 3, 2, name="three-byte values"))
    bpf.map_update(fd, KEY1, b"abc")
    assert [bpf.map_lookup(fd, key, 3) for key in (KEY0, KEY1)] == [bytes(3), b"abc"]
    assert bpf.map_next_key(fd, None, 4) == KEY0
    assert bpf.map_next_key(fd, KEY0, 4) == KEY1
    for call, number in [
        (lambda: bpf.map_lookup(fd, KEY2, 3), errno.ENOENT),
        (lambda: bpf.map_update(fd, KEY2, b"xyz"), errno.E2BIG),
        (lambda: bpf.map_update(fd, KEY0, b"xyz", UpdateFlag.NOEXIST), errno.EEXIST),
        (lambda: bpf.map_update(fd, KEY0, b"xyz", 1 << 8), errno.EINVAL),
        (lambda: bpf.map_delete(fd, KEY0), errno.EINVAL),
        (lambda: bpf.map_next_key(fd, KEY1, 4), errno.ENOENT),
    ]:
        with pytest.raises(OSError) as caught:
            call()
        assert caught.value.errno == number


def test_hash_map(closing):
    fd = closing(bpf.map_create(MapType.HASH, 4, 8, 2))
    with pytest.raises(FileNotFoundError):
        bpf.map_next_key(fd, None, 4)
    bpf.map_update(fd, KEY1, bytes(range(8)), UpdateFlag.NOEXIST)
    bpf.map_update(fd, KEY1, bytes(range(1, 9)), UpdateFlag.EXIST)
    assert bpf.map_lookup(fd, KEY1, 8) == bytes(range(1, 9))
    bpf.map_delete(fd, KEY1)
    for call in (
        lambda: bpf.map_lookup(fd, KEY1, 8),
        lambda: bpf.map_delete(fd, KEY1),
        lambda: bpf.map_update(fd, KEY1, bytes(8), UpdateFlag.EXIST),
    ):
        with pytest.raises(FileNotFoundError):
            call()


def test_frozen_map_refuses_updates(closing):
    fd = closing(bpf.map_create(MapType.ARRAY, 4, 4, 1, flags=MapFlag.RDONLY_PROG))
    bpf.map_update(fd, KEY0, b"late")
    bpf.map_freeze(fd)
    with pytest.raises(PermissionError):
        bpf.map_update(fd, KEY0, b"more")
    assert bpf.map_lookup(fd, KEY0, 4) == b"late"


def test_percpu_array_moves_one_value_alone(closing, namespace):
    fd = closing(bpf.map_create(MapType.PERCPU_ARRAY, 4, 8, 1))
    program = xdp(
        closing,
        f"""
            *(u32 *)(r10 - 4) = 0
            r2 = r10
            r2 += -4
            r1 = map_by_fd({fd}) ll
            call 1
            if r0 == 0 goto out
            r1 = 1
            lock *(u64 *)(r0 + 0) += r1
        out:
            r0 = 1
            exit
        """,
    )
    for _ in range(5):
        assert namespace.call(bpf.prog_test_run, program, bytes(60)).value == XdpAction.XDP_DROP
    cpus = bpf.possible_cpus()
    counts = struct.unpack(f"={cpus}Q", bpf.map_lookup(fd, KEY0, 8 * cpus))
    assert counts == tuple(5 * (cpu == namespace.cpu) for cpu in range(cpus))


def test_program_sees_packet_and_context_and_changes_the_packet(closing, namespace):
    program = xdp(
        closing,
        """
            r2 = *(u32 *)(r1 + 0)
            r3 = *(u32 *)(r1 + 4)
            r4 = r2
            r4 += 14
            r0 = 0
            if r4 > r3 goto out
            r4 = *(u8 *)(r2 + 13)
            r4 += 1
            *(u8 *)(r2 + 13) = r4
            r0 = *(u32 *)(r1 + 12)
        out:
            exit
        """,
    )
    packet = bytes(range(60))
    run = namespace.call(bpf.prog_test_run, program, packet, context=xdp_md(60, ingress=300))
    assert run.value == 300
    assert run.data == packet[:13] + b"\x0e" + packet[14:]
    with pytest.raises(OSError) as caught:
        namespace.call(bpf.prog_test_run, program, packet, context=xdp_md(60, ingress=8))
    assert caught.value.errno == errno.ENODEV
    with pytest.raises(OSError) as caught:
        namespace.call(bpf.prog_test_run, program, bytes(13))
    assert caught.value.errno == errno.EINVAL


def test_refused_program_comes_with_the_verifiers_log():
    with pytest.raises(bpf.Refused) as caught:
        bpf.prog_load(ProgramType.XDP, assemble("r0 = r2\nexit"))
    assert caught.value.errno == errno.EACCES and "R2 !read_ok" in caught.value.log


def test_accepted_program_is_logged_where_asked(closing):
    fd, log = bpf.prog_load(ProgramType.XDP, assemble("r0 = 2\nexit"), log_level=2)
    closing(fd)
    assert "R0" in log and "processed 2 insns" in log


def test_bad_btf_is_refused_with_a_log():
    with pytest.raises(bpf.Refused) as caught:
        bpf.btf_load(struct.pack("=HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 4, 1) + bytes(5))
    assert caught.value.errno == errno.EINVAL and caught.value.log


def test_namespace_has_the_links_asked_for_and_leaves_ours_alone(namespace):
    before = socket.if_nameindex(), os.sched_getaffinity(0)
    space = Namespace((1, 40, 41))
    assert {index for index, _ in space.call(socket.if_nameindex)} == {1, 40, 41}
    space.close()
    assert {index for index, _ in namespace.call(socket.if_nameindex)} >= {1, 7, 9, 300}
    assert (socket.if_nameindex(), os.sched_getaffinity(0)) == before


def test_process_without_rights_is_told_what_it_lacks():
    script = "import os; from bpfnic.host.linux.permission import unavailable; os.setuid(65534); print(unavailable())"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "a network namespace with veth links: unshare(CLONE_NEWNET): Operation not permitted\n"


def test_namespace_refuses_an_ifindex_given_twice():
    with pytest.raises(FileExistsError, match="making the veth links 5 and 5"):
        Namespace((5, 5))


# -- redirect -----------------------------------------------------------------------------------------------------


def redirecting(ifindex, flags):
    return f"""
        r1 = {ifindex}
        r2 = {flags}
        call 23
        exit
    """


@pytest.mark.parametrize(
    ("ifindex", "flags", "verdict", "target"),
    [(9, 0, XdpAction.XDP_REDIRECT, 9), (77, 0, XdpAction.XDP_REDIRECT, 77), (9, 1, XdpAction.XDP_ABORTED, None)],
)
def test_redirect_target_is_noted(closing, namespace, ifindex, flags, verdict, target):
    record = RedirectRecord()
    closing(record.fd)
    program = xdp(closing, redirecting(ifindex, flags), record)
    record.clear()
    assert namespace.call(bpf.prog_test_run, program, bytes(60)).value == verdict
    assert record.target() == (None if target is None else Target(target))
    record.clear()
    assert record.target() is None


def test_last_good_redirect_counts_wherever_it_is_called(closing, namespace):
    record = RedirectRecord()
    closing(record.fd)
    program = xdp(
        closing,
        """
            r6 = *(u32 *)(r1 + 12)
            r1 = 9
            r2 = 0
            call 23
            if r6 == 7 goto over
            call function
        over:
            r1 = 300
            r2 = 4
            call 23
            r0 = 4
            exit
        function:
            r1 = 7
            r2 = 0
            call 23
            exit
        """,
        record,
    )
    for ingress, target in [(7, 9), (9, 7)]:
        record.clear()
        run = namespace.call(bpf.prog_test_run, program, bytes(60), context=xdp_md(60, ingress))
        assert (run.value, record.target()) == (XdpAction.XDP_REDIRECT, Target(target))


def test_program_without_redirect_is_left_as_it_is(closing):
    record = RedirectRecord()
    closing(record.fd)
    code = assemble("r1 = 0x1700000085 ll\nr0 = 4\nexit")  # a constant that holds the call's bytes
    assert record.instrument(code, ()) == code

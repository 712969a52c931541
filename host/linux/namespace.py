"""A network namespace that holds links with the ifindexes of the NIC's interfaces.

A program under BPF_PROG_TEST_RUN sees the ifindex of its ingress only if the calling thread's namespace has a link of
that number, and DEVMAP entries and FIB look-ups name links too. The namespace belongs to one thread, which every call
runs in: the caller's own network never changes, and when the thread ends, the kernel takes the namespace down.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_CLONE_NEWNET = 0x40000000

# rtnetlink: include/uapi/linux/{netlink,rtnetlink,if_link,veth}.h
_RTM_NEWLINK = 16
_NLMSG_ERROR = 2
_NLM_F_REQUEST, _NLM_F_ACK, _NLM_F_EXCL, _NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
_IFLA_IFNAME, _IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_INFO_DATA = 3, 18, 1, 2
_VETH_INFO_PEER = 1

LOOPBACK = 1  # every namespace has it from the start
SPARE = 0x7FFF0000  # and on: other ends of links that have no other, far from any number that a user would choose

_P = ParamSpec("_P")
_T = TypeVar("_T")


def link_name(ifindex: int) -> str:
    """What a link is called there."""
    return "lo" if ifindex == LOOPBACK else f"nic{ifindex}"


class Namespace:
    """A private network namespace and the thread that lives in it.

    Parameters
    ----------
    ifindexes: the links to make, distinct and 1 to 2**31 - 2. Links are ends of veth pairs, down, and in pairs in the
        order given; number 1 is the loopback link, which is there already.
    cpu: the one CPU that the thread runs on, so that of a per-CPU map's values one alone moves; None for the first
        that the process may use.

    Raises OSError where the process may not make namespaces or links.
    """

    def __init__(self, ifindexes: Sequence[int] = (), cpu: int | None = None):
        self.cpu = min(os.sched_getaffinity(0)) if cpu is None else cpu
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bpfnic-linux")
        try:
            self.call(self._enter, [index for index in ifindexes if index != LOOPBACK])
        except OSError:
            self.close()
            raise

    def _enter(self, ifindexes: list[int]) -> None:
        os.sched_setaffinity(0, {self.cpu})
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(_CLONE_NEWNET):
            errno = ctypes.get_errno()
            raise OSError(errno, f"unshare(CLONE_NEWNET): {os.strerror(errno)}")
        for i in range(0, len(ifindexes), 2):
            one, *other = ifindexes[i : i + 2]
            _make_pair(one, *(other or [SPARE]))

    def call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Runs `function` inside; its result, or its exception."""
        return self._thread.submit(function, *args, **kwargs).result()

    def close(self) -> None:
        """Ends the thread and with it the namespace."""
        self._thread.shutdown()


def _make_pair(one: int, other: int) -> None:
    """Makes two links of these ifindexes, joined by a virtual cable."""
    peer = _attribute(_VETH_INFO_PEER, _link(other) + _attribute(_IFLA_IFNAME, f"{link_name(other)}\0".encode()))
    info = _attribute(_IFLA_INFO_KIND, b"veth\0") + _attribute(_IFLA_INFO_DATA, peer)
    body = _link(one) + _attribute(_IFLA_IFNAME, f"{link_name(one)}\0".encode()) + _attribute(_IFLA_LINKINFO, info)
    flags = _NLM_F_REQUEST | _NLM_F_ACK | _NLM_F_EXCL | _NLM_F_CREATE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWLINK, flags, 1, 0) + body)
        answer = netlink.recv(65536)
    (kind,) = struct.unpack_from("=H", answer, 4)
    (error,) = struct.unpack_from("=i", answer, 16)
    if kind != _NLMSG_ERROR or error:
        raise OSError(-error, f"making the veth links {one} and {other}: {os.strerror(-error)}")


def _link(ifindex: int) -> bytes:
    return struct.pack("=BxHiII", socket.AF_UNSPEC, 0, ifindex, 0, 0)  # struct ifinfomsg


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)

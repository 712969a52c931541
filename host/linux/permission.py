"""Whether this process may use the running kernel as a device."""

from __future__ import annotations

import os
from functools import cache

from bpfnic.host.linux import bpf
from bpfnic.host.linux.namespace import Namespace
from bpfnic.spec.programs import ProgramType

_RETURN_2 = bytes.fromhex("b700000002000000 9500000000000000")


@cache
def unavailable() -> str | None:
    """Why the linux backend can't work here, or None if it can: found out by making a namespace with two links and
    running a program of two instructions in it."""
    step = "a network namespace with veth links"
    try:
        namespace = Namespace((2, 3))
        try:
            step = "bpf(BPF_PROG_LOAD)"
            program, _log = bpf.prog_load(ProgramType.XDP, _RETURN_2)
            step = "bpf(BPF_PROG_TEST_RUN)"
            try:
                bpf.prog_test_run(program, bytes(14))
            finally:
                os.close(program)
        finally:
            namespace.close()
    except (OSError, AttributeError) as error:  # AttributeError: a system without CPU affinity or unshare
        return f"{step}: {error.strerror if isinstance(error, OSError) else error}"
    return None

"""What becomes of a packet: from a program's end to an egress and a count (kernel: xdp_do_redirect)."""

from dataclasses import dataclass

from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import TC_DROPS, ProgramType, TcAction, XdpAction


@dataclass(frozen=True)
class Outcome:
    """action: what is counted; egress: the interface the frame leaves by, None for nowhere; queue: of the host, where
    a program chose one; cause: why it was aborted;
    verdict: r0 of the program, None where none ran or it was ended; length: so many bytes of the frame at most leave,
    None for all."""

    action: XdpAction
    egress: int | None = None
    cause: Cause = Cause.NONE
    verdict: int | None = None
    queue: int | None = None
    length: int | None = None


def aborted(cause: Cause, verdict: int | None = None) -> Outcome:
    """Ended with a cause."""
    return Outcome(XdpAction.XDP_ABORTED, None, cause, verdict)


def decide(
    program_type: ProgramType,
    verdict: int,
    target: tuple[int, int | None] | None,
    ingress: int,
    host: int,
    queue: int = 0,
) -> Outcome:
    """The outcome of a program that ended with `verdict` (32 bits).

    target: the interface that it redirected to, with the host's queue or None. host: its interface number. queue: the
    host's, that an XDP program chose for a packet that passes."""
    if program_type is ProgramType.SCHED_CLS:
        return _decide_tc(verdict, target, host)
    if program_type is ProgramType.SOCKET_FILTER:
        return _decide_socket(verdict, host)
    if verdict > XdpAction.XDP_REDIRECT:
        return aborted(Cause.VERDICT, verdict)
    action = XdpAction(verdict)
    match action:
        case XdpAction.XDP_ABORTED:
            return aborted(Cause.PROGRAM, verdict)
        case XdpAction.XDP_DROP:
            return Outcome(action, None, verdict=verdict)
        case XdpAction.XDP_PASS:
            return Outcome(action, host, verdict=verdict, queue=queue or None)
        case XdpAction.XDP_TX:
            return Outcome(action, ingress, verdict=verdict)
        case XdpAction.XDP_REDIRECT:
            if target is None:
                return aborted(Cause.REDIRECT, verdict)
            return Outcome(action, target[0], verdict=verdict, queue=target[1])


def _decide_tc(verdict: int, target: tuple[int, int | None] | None, host: int) -> Outcome:
    """As cls_bpf and sch_handle_ingress() have it."""
    if verdict in TC_DROPS:
        return Outcome(XdpAction.XDP_DROP, None, verdict=verdict)
    if verdict != TcAction.REDIRECT:
        return Outcome(XdpAction.XDP_PASS, host, verdict=verdict)
    if target is None:
        return aborted(Cause.REDIRECT, verdict)
    return Outcome(XdpAction.XDP_REDIRECT, target[0], verdict=verdict, queue=target[1])


def _decide_socket(verdict: int, host: int) -> Outcome:
    """As run_filter() and packet_rcv() have it: so many bytes are kept, of a packet with none nothing."""
    if verdict == 0:
        return Outcome(XdpAction.XDP_DROP, None, verdict=verdict)
    return Outcome(XdpAction.XDP_PASS, host, verdict=verdict, length=verdict)

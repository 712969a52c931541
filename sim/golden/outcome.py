"""What becomes of a packet: from a program's end to the next program on its way, or to an egress and a count (kernel:
xdp_do_redirect, sch_handle_ingress, sch_handle_egress, skb_do_redirect)."""

from dataclasses import dataclass
from typing import NamedTuple

from bpfnic.sim.golden.helpers import Target
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import MAX_HOPS, TC_DROPS, Hook, ProgramType, TcAction, XdpAction


class Stage(NamedTuple):
    """A hook of an interface."""

    hook: Hook
    device: int


@dataclass(frozen=True)
class Outcome:
    """What becomes of a packet if no program stands where it goes on. action: what is counted; egress: the interface
    the frame leaves by, None for nowhere; queue: of the host, where a program chose one; cause: why it was aborted;
    verdict: r0 of the program, None where none ran or it was ended; length: so many bytes of the frame at most leave,
    None for all.

    stopped: the slot at which it was ended, None where it came to its end or left the program store.

    onward: where it goes on, if a program stands there, or at a hook behind it; chained: first with the next program of
    the same hook. sent: a tc program sent it on; iif: where it comes in then.
    """

    action: XdpAction
    egress: int | None = None
    cause: Cause = Cause.NONE
    verdict: int | None = None
    queue: int | None = None
    length: int | None = None
    stopped: int | None = None
    onward: Stage | None = None
    chained: bool = False
    sent: bool = False
    iif: int | None = None


def aborted(cause: Cause, verdict: int | None = None, stopped: int | None = None) -> Outcome:
    """Ended with a cause."""
    return Outcome(XdpAction.XDP_ABORTED, None, cause, verdict, stopped=stopped)


def decide(
    program_type: ProgramType,
    verdict: int,
    target: Target | None,
    stage: Stage,
    host: int,
    hops: int,
    queue: int,
) -> Outcome:
    """The outcome of a program that ended with `verdict` (32 bits) where it stood.

    target: what it redirected to. host: its interface number. hops: how often tc programs sent the packet on before.
    queue: the host's, that an XDP program chose for a packet that passes."""
    queue = 0 if hops else queue
    if program_type is ProgramType.SCHED_CLS:
        return _decide_tc(verdict, target, stage, host, hops, queue)
    if program_type is ProgramType.SOCKET_FILTER:
        return _decide_socket(verdict, host, queue)
    if verdict > XdpAction.XDP_REDIRECT:
        return aborted(Cause.VERDICT, verdict)
    action = XdpAction(verdict)
    match action:
        case XdpAction.XDP_ABORTED:
            return aborted(Cause.PROGRAM, verdict)
        case XdpAction.XDP_DROP:
            return Outcome(action, None, verdict=verdict)
        case XdpAction.XDP_PASS if stage.hook is Hook.XDP and stage.device != host:
            onward = Stage(Hook.TCX_INGRESS, stage.device)
            return Outcome(action, host, verdict=verdict, queue=queue or None, onward=onward)
        case XdpAction.XDP_PASS:
            return _passed(stage, host, hops, verdict, queue)
        case XdpAction.XDP_TX:
            return Outcome(action, stage.device, verdict=verdict)
        case XdpAction.XDP_REDIRECT:
            if target is None:
                return aborted(Cause.REDIRECT, verdict)
            return Outcome(action, target.interface, verdict=verdict, queue=target.queue)


def _passed(stage: Stage, host: int, hops: int, verdict: int, queue: int, chained: bool = False) -> Outcome:
    """Behind a hook: out of its port, or to the host, at first to the queue that XDP chose."""
    if stage.hook is Hook.TCX_EGRESS:
        action = XdpAction.XDP_REDIRECT if hops else XdpAction.XDP_TX
        return Outcome(action, stage.device, verdict=verdict, chained=chained)
    onward = Stage(Hook.SOCKET, stage.device) if stage.hook is Hook.TCX_INGRESS else None
    return Outcome(XdpAction.XDP_PASS, host, verdict=verdict, queue=queue or None, onward=onward, chained=chained)


def _decide_tc(verdict: int, target: Target | None, stage: Stage, host: int, hops: int, queue: int) -> Outcome:
    if verdict in TC_DROPS:
        return Outcome(XdpAction.XDP_DROP, None, verdict=verdict)
    if verdict != TcAction.REDIRECT:
        return _passed(stage, host, hops, verdict, queue, chained=verdict == TcAction.UNSPEC)
    if target is None or hops == MAX_HOPS:
        return aborted(Cause.REDIRECT, verdict)
    if target.inward:
        onward, port = Stage(Hook.TCX_INGRESS, target.interface), target.interface
        return Outcome(XdpAction.XDP_PASS, host, verdict=verdict, onward=onward, sent=True, iif=port)
    onward = Stage(Hook.TCX_EGRESS, target.interface)
    return Outcome(XdpAction.XDP_REDIRECT, target.interface, verdict=verdict, queue=target.queue, onward=onward,
                   sent=True)  # fmt: skip


def _decide_socket(verdict: int, host: int, queue: int) -> Outcome:
    """As run_filter() and packet_rcv() have it: so many bytes are kept, of a packet with none nothing."""
    if verdict == 0:
        return Outcome(XdpAction.XDP_DROP, None, verdict=verdict)
    return Outcome(XdpAction.XDP_PASS, host, verdict=verdict, queue=queue or None, length=verdict)

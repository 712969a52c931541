"""What the parts of the packet path hand each other, besides what hdl/interfaces.py says of its outside."""

from amaranth.lib import data
from amaranth.lib.enum import Enum
from amaranth.lib.wiring import In, Out, Signature
from amaranth.utils import ceil_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import EGRESS_USER, QUEUE_BITS, Hook
from bpfnic.hdl.packets.flow import FLOW_BITS
from bpfnic.spec import addresses
from bpfnic.spec.programs import MAX_HOPS, ProgramType
from bpfnic.spec.registers import CHAIN_WORDS, ENTRY_TYPES

XDP = ENTRY_TYPES.index(ProgramType.XDP)
SCHED_CLS, SOCKET_FILTER = (ENTRY_TYPES.index(each) for each in (ProgramType.SCHED_CLS, ProgramType.SOCKET_FILTER))
WORD_BYTES = 8
FIRST_WORD = addresses.HEADROOM // WORD_BYTES
"""Where a received frame begins in its buffer, in words: even, so that it begins in the even bank."""


def buffer_words(config: NicConfig) -> int:
    """64-bit words of a packet buffer."""
    return config.buffer_bytes // WORD_BYTES


def Offset(config: NicConfig) -> range:
    """A byte offset in a buffer, its end included."""
    return range(config.buffer_bytes + 1)


def Place(config: NicConfig) -> data.StructLayout:
    """Where a packet lies."""
    return data.StructLayout({"core": range(config.cores), "buffer": range(config.packet_buffers)})


def Order(config: NicConfig) -> int:
    """Bits of a sequence number that tell apart the frames that wait for a thread. One core's queue needs none."""
    return 0 if config.cores == 1 else ceil_log2(2 * config.cores * config.packet_buffers)


def Frame(config: NicConfig) -> data.StructLayout:
    """An accepted frame on its way to its core's dispatcher. hops: as of Thread. ingress: whose order it leaves in;
    iif: where it came in.
    leaving: it is to leave by port `device`, otherwise it comes in there. flow: see Flow. order: the low bits of its
    sequence number."""
    return data.StructLayout(
        {
            "buffer": range(config.packet_buffers),
            "ingress": range(config.ingresses),
            "iif": range(config.interfaces),
            "device": range(config.interfaces),
            "leaving": 1,
            "hops": range(MAX_HOPS + 1),
            "data": Offset(config),
            "data_end": Offset(config),
            "flow": FLOW_BITS,
            "order": Order(config),
            "sequence": 32 if config.trace else 0,
        }
    )


def Thread(config: NicConfig) -> data.StructLayout:
    """What the packet path knows of a running thread. `device`: the interface at whose `hook` its program stands;
    following: the next one there (interfaces.Entry); `iif`: where its packet came in. hops: how often a tc program
    sent it on. `lowest`: the lowest `data_meta` that its packet has had, below
    which the buffer holds an earlier packet's bytes. `target`: the interface that the last redirect chose, if
    `redirected`, and `queue` of the host; `inward`: it comes in there. program_type : registers.ENTRY_TYPES."""
    return data.StructLayout(
        {
            "buffer": range(config.packet_buffers),
            "device": range(config.interfaces),
            "iif": range(config.interfaces),
            "data_meta": Offset(config),
            "data": Offset(config),
            "data_end": Offset(config),
            "lowest": range(addresses.HEADROOM + 1),
            "redirected": 1,
            "inward": 1,
            "target": range(config.interfaces),
            "queue": QUEUE_BITS,
            "program_type": range(len(ENTRY_TYPES)),
            "hook": Hook,
            "following": range(CHAIN_WORDS),
            "hops": range(MAX_HOPS + 1),
        }
    )


class Kind(Enum, shape=3):
    """How a packet left, in the order of IngressEvent from DROPPED on; plus one, the XDP action (but for ABORTED)."""

    DROPPED = 0
    PASSED = 1
    TRANSMITTED = 2
    REDIRECTED = 3
    ABORTED = 4


def Outcome(config: NicConfig) -> data.StructLayout:
    """What becomes of a packet. data and length: its bytes; egress: where to, unless dropped or aborted (with `cause`),
    and to which `queue` of the host if redirected. ran: by a program's verdict. iif: where it came in."""
    return data.StructLayout(
        {
            "kind": Kind,
            "ran": 1,
            "iif": range(config.interfaces),
            "egress": range(config.interfaces),
            "queue": QUEUE_BITS,
            "cause": 4,
            "data": range(config.buffer_bytes),
            "length": Offset(config),
        }
    )


def Completion(config: NicConfig) -> data.StructLayout:
    """A packet that is done, on its way to Collect."""
    return data.StructLayout({"buffer": range(config.packet_buffers), "outcome": Outcome(config)})


def Departure(config: NicConfig) -> data.StructLayout:
    """A packet in an egress queue. user: what its beats carry (interfaces.Beat)."""
    return data.StructLayout(
        {"place": Place(config), "data": range(config.buffer_bytes), "length": Offset(config), "user": EGRESS_USER}
    )


def BufferStrobe(config: NicConfig) -> Signature:
    """Something happens to a buffer in this clock."""
    return Signature({"enable": Out(1), "buffer": Out(range(config.packet_buffers))})


def ThreadStrobe(config: NicConfig) -> Signature:
    """Something happens to a thread in this clock."""
    return Signature({"enable": Out(1), "thread": Out(range(config.threads))})


def WordWrite(config: NicConfig) -> Signature:
    """Writes bytes of one word of a packet buffer: `mask`, a bit for each of them, the first one lowest."""
    return Signature(
        {
            "buffer": Out(range(config.packet_buffers)),
            "word": Out(range(buffer_words(config))),
            "mask": Out(8),
            "data": Out(64),
        }
    )


def WordRead(config: NicConfig) -> Signature:
    """Reads a word of a packet buffer; the data are valid exactly 3 clocks later."""
    return Signature(
        {"buffer": Out(range(config.packet_buffers)), "word": Out(range(buffer_words(config))), "data": In(64)}
    )


def ZeroPort(config: NicConfig) -> Signature:
    """Asks to clear bytes of one word: `ready` when that is under way."""
    return Signature(
        {
            "valid": Out(1),
            "ready": In(1),
            "buffer": Out(range(config.packet_buffers)),
            "word": Out(range(buffer_words(config))),
            "mask": Out(8),
        }
    )


def QueueRead(config: NicConfig) -> Signature:
    """The host's queue that a thread's program has chosen for its packet, in the same clock."""
    return Signature({"thread": Out(range(config.threads)), "queue": In(QUEUE_BITS)})


def Clone(config: NicConfig) -> data.StructLayout:
    """What a thread's call of bpf_clone_redirect came to: its packet's clone in `buffer`, or, where no buffer was free
    (not `made`), nothing. As Frame says."""
    return data.StructLayout(
        {
            "made": 1,
            "thread": range(config.threads),
            "buffer": range(config.packet_buffers),
            "iif": range(config.interfaces),
            "device": range(config.interfaces),
            "leaving": 1,
            "hops": range(MAX_HOPS + 1),
            "data": Offset(config),
            "data_end": Offset(config),
        }
    )


def Resume(config: NicConfig) -> Signature:
    """A thread whose program ended goes on with its packet: its new row, and the next program's first slot.
    keeps: the skb context stays as it is."""
    return Signature(
        {
            "valid": Out(1),
            "thread": Out(range(config.threads)),
            "row": Out(Thread(config)),
            "slot": Out(range(config.program_slots)),
            "keeps": Out(1),
        }
    )


def ThreadWrite(config: NicConfig) -> Signature:
    """Replaces a row of the thread table; done in a clock in which `ready` is high too."""
    return Signature(
        {"valid": Out(1), "ready": In(1), "thread": Out(range(config.threads)), "row": Out(Thread(config))}
    )


def ThreadRead(config: NicConfig) -> Signature:
    """Reads a row of the thread table in the same clock."""
    return Signature({"thread": Out(range(config.threads)), "row": In(Thread(config))})

"""Service: the helpers that change what the packet path holds for a thread (net/core/filter.c of Linux 6.18).

bpf_xdp_redirect: unknown flags answer XDP_ABORTED and change nothing (of a tc program BPF_F_INGRESS is known);
otherwise the target is remembered and
XDP_REDIRECT answered. bpf_redirect_map: `_redirect_map` says what it does with the entry that the core found.
bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_adjust_meta: 0, or -EINVAL beyond the limits that spec.addresses
names; -EACCES for metadata of another size than Linux has. Headroom that comes into sight for the first time, and what
the tail grows by, is cleared before the answer. Metadata moves along with the head, 4 bytes at a time, in clocks in
which the core leaves its windows alone.

bpf_clone_redirect: -EINVAL for an unknown flag or no port, -ENETDOWN behind MAX_HOPS, -ENOMEM where no buffer is free
at once (so that nothing ever
waits for a buffer that it holds itself). Otherwise the packet's words are copied in the same way, 8 bytes at a time, to
the same place in the buffer, and the clone is handed over as a frame of its own before the answer.
"""

from errno import EACCES, EINVAL, ENETDOWN, ENOMEM

from amaranth import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.utils import exact_log2

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import QUEUE_BITS, Answer, LocalPort, Region, Service, ServiceRequest
from bpfnic.hdl.lanes import even_row, touched
from bpfnic.hdl.packets.metadata import Asked, MetadataPort
from bpfnic.hdl.packets.records import SCHED_CLS, WORD_BYTES, Clone, Offset, Thread, ThreadRead, ThreadWrite, ZeroPort
from bpfnic.spec import addresses
from bpfnic.spec.maps import REDIRECT_ACTION, REDIRECT_QUEUE, REDIRECT_SHIFT, REDIRECT_TAKEN, RedirectFlag
from bpfnic.spec.programs import BPF_F_INGRESS, MAX_HOPS, XdpAction

_ASKED = {
    Service.RX_TIMESTAMP: Asked.RX_TIMESTAMP,
    Service.RX_HASH: Asked.RX_HASH,
    Service.RX_VLAN_TAG: Asked.RX_VLAN_TAG,
}
_FLAG_BITS = (BPF_F_INGRESS | REDIRECT_ACTION | RedirectFlag.EXCLUDE_INGRESS).bit_length()  # that some call knows
_MOVED = addresses.METADATA_ALIGN  # bytes of metadata, at a time


class ServiceUnit(Component):
    """One request at a time; 3 clocks from a request to its answer, 1 or 2 more for each word to be cleared, and 5 for
    each 4 bytes of metadata that move or 8 bytes that are cloned. The row is written in the clock of the answer at the
    latest. The next request is taken while an answer waits.

    Members
    -------
    request, answer : the core's.
    thread, change : to the thread table. taken_next : a `change` would be taken in the next clock.
    ifindex : of each port.
    zero : to the core's packet buffers.
    local : to the core's windows, in a clock in which it `waits` for nobody.
    received : what the packet was as it came in.
    spare_ready, spare, empty, take : to the core's Pool. `free` : Receive takes no buffer in this clock; every second
        one is such. wants : the next buffer is taken.
    clone : what a call of bpf_clone_redirect came to.
    """

    def __init__(self, config: NicConfig):
        self.config = config
        super().__init__(
            {
                "request": In(stream.Signature(ServiceRequest(config))),
                "answer": Out(stream.Signature(Answer(config))),
                "thread": Out(ThreadRead(config)),
                "change": Out(ThreadWrite(config)),
                "taken_next": In(1),
                "ifindex": In(32).array(config.ports),
                "zero": Out(ZeroPort(config)),
                "local": Out(LocalPort(config)),
                "waits": In(1),
                "received": Out(MetadataPort(config)),
                "spare_ready": In(1),
                "spare": In(range(config.packet_buffers)),
                "empty": In(1),
                "free": In(1),
                "wants": Out(1),
                "take": Out(1),
                "clone": Out(stream.Signature(Clone(config))),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        config = self.config
        thread, service = Signal(range(config.threads)), Signal(Service)
        number, entry, flags = Signal(32), Signal(32), Signal(64)  # ifindex or delta
        unknown = Signal()  # a flag that this call doesn't know
        # The answer: a small number, or what is in `word`, which stays until it has gone.
        status, of_word = Signal(signed(8)), Signal()
        row = Signal(Thread(config))
        # Where data_meta or data_end shall be, unless that is too `far` for it; it is `below` where that may be, or it
        # `shows` bytes that this packet never had; `room` is left to where that may be at most. All are sums of the
        # row's and the call's numbers, so that DECIDE compares little.
        far, moved, below, shows = Signal(), Signal(signed(len(row.data) + 2)), Signal(), Signal()
        room, grows = Signal(signed(len(row.data) + 3)), Signal()
        metadata = Signal(8)  # bytes of it
        answered = Signal()  # the answer is there as the row is written
        start, last = Signal(Offset(config)), Signal(Offset(config))  # bytes to clear, the last one included
        source, target = Signal(range(config.buffer_bytes)), Signal(range(config.buffer_bytes))
        left, word, arrives = Signal(Offset(config)), Signal(64), Signal(3)  # bytes to move; `word` is on its way
        copying, copy = Signal(), Signal(Clone(config))
        # Bytes are to be cleared, the row is to be written, a clone is offered: others decide by it in its clock.
        clears, changes, offers = Signal(), Signal(), Signal()
        heard = Signal()  # what the packet was as it came in is in `word`
        reads, places = Signal(), Signal()  # what is asked of `local`: from registers, for its words have a long way

        is_head, is_tail, is_meta = Signal(), Signal(), Signal()
        upward = ~number[-1]
        at = moved[: len(row.data)].as_unsigned()
        port, is_port = Signal(range(config.interfaces)), Signal()  # the one with ifindex `number`
        m.d.comb += [
            self.answer.payload.value.eq(Mux(of_word, word, status)),
            self.thread.thread.eq(thread),
            self.change.valid.eq(changes),
            self.change.thread.eq(thread),
            self.change.row.eq(row),
            self.local.enable.eq(reads | places),
            self.local.write.eq(places),
            self.local.region.eq(Region.PACKET),
            self.local.buffer.eq(Mux(places & copying, copy.buffer, row.buffer)),
            self.local.offset.eq(Mux(places, target, source)),
            self.local.even.eq(even_row(self.local.offset)),
            self.local.size.eq(Mux(copying, exact_log2(WORD_BYTES), exact_log2(_MOVED))),
            self.local.lanes.eq(touched(self.local.offset[:3], self.local.size)),
            self.local.write_data.eq(word),
            self.zero.valid.eq(clears),
            self.zero.buffer.eq(row.buffer),
            self.zero.word.eq(start[3:]),
            self.take.eq(self.wants & self.spare_ready & self.free),
            self.received.buffer.eq(row.buffer),
            self.clone.valid.eq(offers),
            self.clone.payload.eq(copy),
        ]
        is_last = start[3:] == last[3:]
        for lane in range(WORD_BYTES):
            m.d.comb += self.zero.mask[lane].eq((start[:3] <= lane) & (~is_last | (last[:3] >= lane)))
        with m.Switch(service):
            for each, asked in _ASKED.items():
                with m.Case(each):
                    m.d.comb += self.received.asked.eq(asked)

        def answer() -> None:
            m.d.sync += self.answer.valid.eq(1)
            m.next = "REQUEST"

        def change() -> None:
            """The answer comes with the row's change, if that is taken then: programs may end for many clocks on end,
            in which the thread would go on with its old row."""
            m.d.sync += [self.answer.valid.eq(self.taken_next), answered.eq(self.taken_next), changes.eq(1)]
            m.next = "CHANGE"

        with m.If(self.answer.ready):
            m.d.sync += self.answer.valid.eq(0)
        with m.FSM():
            with m.State("REQUEST"):
                asked = self.request.payload
                of_port = (asked.service == Service.REDIRECT) | (asked.service == Service.CLONE_REDIRECT)
                m.d.comb += self.request.ready.eq(1)
                m.d.sync += [
                    thread.eq(asked.thread),
                    service.eq(asked.service),
                    is_head.eq(asked.service == Service.ADJUST_HEAD),
                    is_tail.eq(asked.service == Service.ADJUST_TAIL),
                    is_meta.eq(asked.service == Service.ADJUST_META),
                    number.eq(Mux(of_port, asked.a, asked.b)),
                    copying.eq(0),
                    entry.eq(asked.a),
                    flags.eq(asked.b),
                ]
                with m.If(self.request.valid):
                    m.next = "ROW"
            with m.State("ROW"):
                here = self.thread.row
                delta = number[: len(moved) - 1].as_signed()
                base = Mux(is_tail, here.data_end, here.data_meta)
                least = Mux(is_tail, here.data, addresses.FRAME_HEADER - addresses.ETH_HLEN)  # less a header's bytes
                of_xdp = (service == Service.REDIRECT) & (here.program_type != SCHED_CLS)
                known = Mux(service == Service.REDIRECT_MAP, self._known_by_maps(entry),
                            Mux(of_xdp, 0, Const(BPF_F_INGRESS, _FLAG_BITS)))  # fmt: skip
                # The tail may be at the buffer's end at most. With the head the metadata moves, and a header is left.
                upper = Mux(is_tail, addresses.data_hard_end(config.buffer_bytes),
                            Mux(is_head, here.data_end, here.data))  # fmt: skip
                lower = Mux(is_tail, here.data_end, Mux(is_head, here.data, here.data_meta))
                m.d.sync += [
                    row.eq(here),
                    unknown.eq(flags[_FLAG_BITS:].any() | (flags[:_FLAG_BITS] & ~known).any()),
                    far.eq(number[len(row.data) :].any() & ~number[len(row.data) :].all()),
                    moved.eq(base + delta),
                    metadata.eq(here.data - here.data_meta),
                    below.eq((base - least + delta - addresses.ETH_HLEN)[-1]),
                    room.eq(upper - lower - delta - Mux(is_head, addresses.ETH_HLEN, 0)),
                    shows.eq((here.data_meta - here.lowest + delta)[-1]),
                    grows.eq(upward & number.any()),
                ]
                m.d.sync += is_port.eq(0)
                for each, ifindex in enumerate(self.ifindex):
                    with m.If((number == ifindex) & number.any()):
                        m.d.sync += [is_port.eq(1), port.eq(each)]
                with m.If(~self.answer.valid):
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                # What is said here of the row and of the answer counts if the row is changed, or it is answered.
                m.d.sync += [self.answer.payload.thread.eq(thread), of_word.eq(0), status.eq(0)]
                with m.If(is_tail):
                    m.d.sync += row.data_end.eq(at)
                with m.If(is_head):
                    m.d.sync += row.data.eq(at + metadata)
                with m.If(is_head | is_meta):
                    m.d.sync += row.data_meta.eq(at)
                    with m.If(shows):
                        m.d.sync += row.lowest.eq(at)
                with m.Switch(service):
                    with m.Case(Service.REDIRECT):
                        with m.If(unknown):
                            m.d.sync += status.eq(XdpAction.XDP_ABORTED)
                            answer()
                        with m.Else():
                            m.d.sync += status.eq(XdpAction.XDP_REDIRECT)
                            change()
                        m.d.sync += [row.redirected.eq(is_port), row.target.eq(port)]
                        with m.If(row.program_type != SCHED_CLS):  # of a tc program's packet it is XDP's
                            m.d.sync += row.queue.eq(0)
                        m.d.sync += row.inward.eq((flags & BPF_F_INGRESS).any())
                    with m.Case(Service.CLONE_REDIRECT):
                        inward = (flags & BPF_F_INGRESS).any()
                        first, behind = row.data[:3], row.data_end + WORD_BYTES - 1
                        m.d.sync += [
                            status.eq(-EINVAL),
                            copying.eq(1),
                            copy.thread.eq(thread),
                            copy.iif.eq(Mux(inward, port, row.iif)),
                            copy.device.eq(port),
                            copy.leaving.eq(~inward),
                            copy.hops.eq(row.hops + 1),
                            copy.data.eq(row.data),
                            copy.data_end.eq(row.data_end),
                            source.eq(row.data - first),
                            target.eq(row.data - first),
                            left.eq((behind - behind[:3]) - (row.data - first)),
                        ]
                        with m.If(unknown | ~is_port):
                            answer()
                        with m.Elif(row.hops == MAX_HOPS):
                            m.d.sync += status.eq(-ENETDOWN)
                            answer()
                        with m.Else():
                            m.d.sync += self.wants.eq(1)
                            m.next = "BUFFER"
                    with m.Case(Service.REDIRECT_MAP):
                        self._redirect_map(m, entry, flags, unknown, row, status, answer, change)
                    with m.Case(*(_ASKED if config.receive_metadata else ())):
                        m.d.comb += self.received.start.eq(1)
                        m.next = "METADATA"
                    with m.Default():
                        uneven = at[: exact_log2(_MOVED)] != row.data[: exact_log2(_MOVED)]
                        legal = ~far & ~below & ~room[-1]
                        odd = is_meta & (uneven | (room > addresses.METADATA_BYTES))
                        m.d.sync += [
                            status.eq(Mux(~legal, -EINVAL, Mux(odd, -EACCES, 0))),
                            start.eq(Mux(is_tail, row.data_end, at)),
                            last.eq(Mux(is_tail, at, row.lowest) - 1),
                        ]
                        # Metadata moves with the head: upward, its last bytes go first.
                        first = Mux(upward, metadata - _MOVED, 0)[: len(metadata)]
                        m.d.sync += [source.eq(row.data_meta + first), target.eq(at + first)]
                        m.d.sync += left.eq(Mux(is_head & number.any(), metadata, 0))
                        with m.If(~legal | odd):
                            answer()
                        with m.Elif(Mux(is_tail, grows, shows)):
                            m.d.sync += clears.eq(1)
                            m.next = "CLEAR"
                        with m.Elif(is_head & metadata.any()):
                            m.next = "MOVE"
                        with m.Else():
                            change()
            with m.State("CLEAR"):
                with m.If(self.zero.ready):
                    m.d.sync += [start.eq(Cat(Const(0, 3), start[3:] + 1)), clears.eq(~is_last)]
                with m.If(~clears & left.any()):
                    m.next = "MOVE"  # a clock more: what is read next may lie in the word cleared last
                with m.Elif(~clears):
                    change()
            with m.State("BUFFER"):
                m.d.sync += [copy.buffer.eq(self.spare), copy.made.eq(self.spare_ready)]
                m.d.sync += status.eq(Mux(self.spare_ready, 0, -ENOMEM))
                with m.If(self.take):
                    m.d.sync += self.wants.eq(0)
                    m.next = "MOVE"
                with m.Elif(self.empty):
                    m.d.sync += [self.wants.eq(0), offers.eq(1)]
                    m.next = "CLONE"
            with m.State("CLONE"):
                with m.If(self.clone.ready):
                    m.d.sync += offers.eq(0)
                    answer()
            with m.State("MOVE"):
                m.d.sync += reads.eq(left.any())
                with m.If(left.any()):
                    m.next = "READ"
                with m.Elif(copying):
                    m.d.sync += offers.eq(1)
                    m.next = "CLONE"
                with m.Else():
                    change()
            with m.State("READ"):
                m.d.sync += arrives.eq(1)
                with m.If(~self.waits):
                    m.d.sync += reads.eq(0)
                    m.next = "ARRIVE"
            with m.State("ARRIVE"):  # 3 clocks later
                m.d.sync += [arrives.eq(arrives << 1), word.eq(self.local.read_data)]
                with m.If(arrives[-1]):
                    m.d.sync += places.eq(1)
                    m.next = "PLACE"
            with m.State("PLACE"):
                with m.If(~self.waits):
                    size = Mux(copying, WORD_BYTES, _MOVED)
                    step = Mux(copying, WORD_BYTES, Mux(upward, -_MOVED, _MOVED))
                    m.d.sync += [source.eq(source + step), target.eq(target + step), left.eq(left - size)]
                    m.d.sync += [places.eq(0), reads.eq(left != size)]
                    m.next = "READ"
                    with m.If(left == size):
                        m.next = "MOVE"
            with m.State("METADATA"):
                m.d.sync += heard.eq(self.received.done)
                with m.If(~heard):  # then it stays
                    m.d.sync += word.eq(self.received.value)
                m.d.sync += of_word.eq(1)
                with m.If(heard):
                    answer()
            with m.State("CHANGE"):
                with m.If(self.change.ready):
                    m.d.sync += changes.eq(0)
                    with m.If(answered):
                        m.next = "REQUEST"
                    with m.Else():
                        answer()
        return m

    def _known_by_maps(self, entry) -> Value:
        """The flags that bpf_redirect_map knows, by the map's type."""
        of_ports, of_queues = (Const(known, _FLAG_BITS) for known in
                               (REDIRECT_ACTION | RedirectFlag.EXCLUDE_INGRESS, REDIRECT_ACTION))  # fmt: skip
        return Mux((entry & REDIRECT_QUEUE).any(), of_queues, of_ports)

    def _redirect_map(self, m: Module, entry, flags, unknown, row, status, answer, change) -> None:
        """What __bpf_xdp_redirect_map does once it has the entry: an unknown flag answers XDP_ABORTED and changes
        nothing (and so does BROADCAST: a packet of this NIC leaves once); an empty entry answers the action in the
        flags and forgets the target. EXCLUDE_INGRESS is a DEVMAP's, and means nothing without BROADCAST."""
        taken, to_queue = (entry & REDIRECT_TAKEN).any(), (entry & REDIRECT_QUEUE).any()
        where = entry[REDIRECT_SHIFT:]
        with m.If(unknown):
            m.d.sync += status.eq(XdpAction.XDP_ABORTED)
            answer()
        with m.Else():
            m.d.sync += status.eq(Mux(taken, XdpAction.XDP_REDIRECT, flags & REDIRECT_ACTION))
            change()
        m.d.sync += [
            row.redirected.eq(taken & (to_queue | (where[:8] < self.config.ports))),
            row.target.eq(Mux(to_queue, self.config.ports, where[: len(row.target)])),
            row.queue.eq(Mux(to_queue, where[:QUEUE_BITS], 0)),
        ]

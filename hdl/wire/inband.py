"""Messages in frames of their own EtherType among all others of a port: spec/wire.py ETHERTYPE, to the card's address.
"""

from amaranth import Cat, Const, Module, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from bpfnic.hdl.interfaces import EGRESS_USER, INGRESS_USER, Beat
from bpfnic.hdl.wire.link import Link
from bpfnic.spec.wire import ETHERNET_HEADER_BYTES, ETHERTYPE

_TYPE = int.from_bytes(ETHERTYPE.to_bytes(2, "big"), "little")  # as it stands in a beat
_TYPE_AT, _PAYLOAD_LANE = 32, 6  # in a frame's second beat


class InBand(Component):
    """Between a port's MAC and its switch.

    Parameters
    ----------
    address : the card's, 6 bytes.

    Members
    -------
    mac_rx, mac_tx : the MAC.
    ingress, egress : the switch: all frames but those of messages, unchanged, those to the card's address a beat later.
    link : link.Link. A frame that the MAC marks bad is a message that never ends. A reply goes to the sender of the
        last frame that the endpoint listened to, between two frames of `egress`.
    """

    def __init__(self, address: bytes):
        self.address = address
        arriving, leaving = stream.Signature(Beat(INGRESS_USER)), stream.Signature(Beat(EGRESS_USER))
        super().__init__(
            {
                "mac_rx": In(arriving),
                "ingress": Out(arriving),
                "egress": In(leaving),
                "mac_tx": Out(leaving),
                "link": Out(Link),
            }
        )

    def elaborate(self, platform) -> Module:
        m = Module()
        peer = Signal(48, reset_less=True)
        self._receive(m, peer)
        self._send(m, peer)
        return m

    def _receive(self, m: Module, peer: Signal) -> None:
        mac, ingress, link = self.mac_rx, self.ingress, self.link
        beat, held, lane = mac.payload, Signal.like(mac.payload, reset_less=True), Signal(3)
        mine = beat.data[:48] == int.from_bytes(self.address, "little")
        m.d.comb += [ingress.payload.eq(beat), link.data.eq(beat.data.word_select(lane, 8))]
        with m.FSM():
            with m.State("BEGIN"):
                with m.If(mac.valid & mine & ~beat.last):
                    m.d.comb += mac.ready.eq(1)
                    m.d.sync += held.eq(beat)
                    m.next = "TYPE"
                with m.Else():
                    m.d.comb += [ingress.valid.eq(mac.valid), mac.ready.eq(ingress.ready)]
                    with m.If(mac.valid & mac.ready & ~beat.last):
                        m.next = "PASS"
            with m.State("TYPE"):
                with m.If(mac.valid):
                    m.next = "HELD"
                    with m.If(beat.data[_TYPE_AT:][:16] == _TYPE):
                        m.d.comb += link.begin.eq(1)
                        m.d.sync += lane.eq(_PAYLOAD_LANE)
                        with m.If(link.listening):
                            m.d.sync += peer.eq(Cat(held.data[48:], beat.data[:_TYPE_AT]))
                        m.next = "TAKE"
            with m.State("HELD"):
                m.d.comb += [ingress.payload.eq(held), ingress.valid.eq(1)]
                with m.If(ingress.ready):
                    m.next = "PASS"
            with m.State("PASS"):
                m.d.comb += [ingress.valid.eq(mac.valid), mac.ready.eq(ingress.ready)]
                with m.If(mac.valid & mac.ready & beat.last):
                    m.next = "BEGIN"
            with m.State("TAKE"):
                with m.If(mac.valid):
                    m.d.comb += link.byte.eq(beat.keep.bit_select(lane, 1))
                    m.d.sync += lane.eq(lane + 1)
                    with m.If(lane == 7):
                        m.d.comb += mac.ready.eq(1)
                        with m.If(beat.last):
                            m.next = "BEGIN"
                            with m.If(~beat.user[0]):
                                m.next = "END"
            with m.State("END"):
                m.d.comb += link.end.eq(1)
                m.next = "BEGIN"

    def _send(self, m: Module, peer: Signal) -> None:
        mac, egress, reply = self.mac_tx, self.egress, self.link.reply
        header = Cat(peer, Const(int.from_bytes(self.address, "little"), 48), Const(_TYPE, 16))
        written = Signal(range(ETHERNET_HEADER_BYTES + 1))
        whole, count = Signal(64, reset_less=True), Signal(range(9))
        ended, within = Signal(), Signal()
        m.d.comb += mac.payload.eq(egress.payload)
        with m.FSM():
            with m.State("PASS"):
                m.d.comb += [mac.valid.eq(egress.valid), egress.ready.eq(mac.ready)]
                with m.If(egress.valid & egress.ready):
                    m.d.sync += within.eq(~egress.payload.last)
                # Nothing of a frame was offered in this clock, or its end was taken.
                with m.If(reply.valid & ~within & ~egress.valid | reply.valid & egress.valid & egress.ready
                          & egress.payload.last):  # fmt: skip
                    m.d.sync += [written.eq(0), count.eq(0), ended.eq(0)]
                    m.next = "FILL"
            with m.State("FILL"):
                with m.If(written != ETHERNET_HEADER_BYTES):
                    m.d.sync += [whole.eq(Cat(whole[8:], header.word_select(written, 8))), written.eq(written + 1)]
                    m.d.sync += count.eq(count + 1)
                with m.Elif(ended):  # up to a whole beat
                    m.d.sync += [whole.eq(Cat(whole[8:], Const(0, 8))), count.eq(count + 1)]
                with m.Else():
                    m.d.comb += reply.ready.eq(1)
                    with m.If(reply.valid):
                        m.d.sync += [whole.eq(Cat(whole[8:], reply.payload.data)), ended.eq(reply.payload.last)]
                        m.d.sync += count.eq(count + 1)
                with m.If((count == 7) & ((written != ETHERNET_HEADER_BYTES) | ended | reply.valid)):
                    m.next = "OFFER"
            with m.State("OFFER"):
                m.d.comb += [
                    mac.valid.eq(1),
                    mac.payload.data.eq(whole),
                    mac.payload.keep.eq(0xFF),
                    mac.payload.last.eq(ended),
                    mac.payload.user.eq(0),
                ]
                with m.If(mac.ready):
                    m.d.sync += count.eq(0)
                    m.next = "FILL"
                    with m.If(ended):
                        m.d.sync += within.eq(0)
                        m.next = "PASS"

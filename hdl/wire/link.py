"""What carries messages to the endpoint and back."""

from amaranth.lib import stream
from amaranth.lib.data import StructLayout
from amaranth.lib.wiring import In, Out, Signature

Byte = StructLayout({"data": 8, "last": 1})

Link = Signature(
    {
        "begin": Out(1),
        "byte": Out(1),
        "data": Out(8),
        "end": Out(1),
        "listening": In(1),
        "reply": In(stream.Signature(Byte)),
    }
)
"""From a link to the endpoint, strobes of one clock: `begin`, a message begins, whatever came of the one before;
`byte`, its next byte is `data`; `end`, it is whole. Never two of them in one clock. The other way:
`listening`, messages that begin are heard, otherwise lost; a reply, byte by byte, `last` with the last one, follows its
request over the same link, before anything else does."""

"""bpf_xdp_adjust_meta, and bpf_xdp_adjust_head with metadata, golden beside the running kernel. The packet path against
the same rules: tests/hdl/packets/test_packets_windows.py."""

import random
from errno import EACCES, EINVAL

import pytest

from tests.sim.library import Library

pytestmark = pytest.mark.linux

# b bytes of metadata, of which as many are written as there are; the head moves by c; what the metadata is then.
DECLARATIONS = """
static __always_inline long moves(struct xdp_md *ctx, __u64 a, __u64 b, __u64 c, const char *text, char *room)
{
	long first = bpf_xdp_adjust_head(ctx, (int)(a >> 32)), second = bpf_xdp_adjust_meta(ctx, (int)a), third, fourth;
	unsigned char *meta = (void *)(long)ctx->data_meta, *data = (void *)(long)ctx->data;

	for (int at = 0; at < 96 && meta + at + 4 <= data; at += 4)
		*(__u32 *)(meta + at) = *(__u32 *)(text + at);
	third = bpf_xdp_adjust_head(ctx, (int)b);
	fourth = bpf_xdp_adjust_meta(ctx, (int)c);
	meta = (void *)(long)ctx->data_meta;
	data = (void *)(long)ctx->data;
	for (int at = 0; at < 96 && meta + at + 4 <= data; at += 4)
		*(__u32 *)(room + at) = *(__u32 *)(meta + at);
	return (((-first << 8 | -second) << 8 | -third) << 8 | -fourth) << 16 | (ctx->data - ctx->data_meta);
}
"""


def test_as_the_kernel(build):
    chance = random.Random(3)
    results = set()
    call = "moves(ctx, a, b, c, question->text, answer->room)"
    with Library(build, "golden", call, DECLARATIONS) as ours, Library(build, "linux", call, DECLARATIONS) as theirs:
        for _ in range(500):
            before = chance.choice((0, 0, 20, 49, -50, -216, 100))
            size = chance.choice((0, 4, 8, 12, 60, 64, 96, 216, 220, 252, 256, 2, 7, chance.randrange(300), -4))
            head = chance.choice((0, -1, 1, -4, 4, -8, 8, -30, 30, chance.randrange(-250, 250)))
            again = chance.choice((0, 0, 4, -4, 3, size, -size))
            question = ((before & 0xFFFFFFFF) << 32 | -size & 0xFFFFFFFF, head, again)
            frame, text = bytes(range(200)), chance.randbytes(96)
            got, wanted = ours.ask(*question, text=text, frame=frame), theirs.ask(*question, text=text, frame=frame)
            assert got == wanted, (before, size, head, again)
            results.add(got.result)
    errors = {number >> shift & 0xFF for number in results for shift in (16, 24, 32, 40)}
    assert errors == {0, EINVAL, EACCES} and len({number & 0xFFFF for number in results}) > 20

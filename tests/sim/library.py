"""A card that asks one helper a question: a program with arguments from a map, on golden, rtl or the running kernel."""

import struct
from typing import NamedTuple

import bpfnic
from bpfnic.host.device import DeviceOptions

HEAD = """#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
char _license[] SEC("license") = "GPL";
struct question { __u64 arguments[4]; char text[96]; };
struct answer { __s64 result; char room[96]; };
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct question); }
	questions SEC(".maps");
struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1); __type(key, __u32); __type(value, struct answer); }
	answers SEC(".maps");
DECLARATIONS
SEC("xdp") int program(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct question *question = bpf_map_lookup_elem(&questions, &zero);
	struct answer *answer = bpf_map_lookup_elem(&answers, &zero);

	if (!question || !answer)
		return XDP_ABORTED;
	__u64 a = question->arguments[0], b = question->arguments[1], c = question->arguments[2];
	(void)a, (void)b, (void)c;
	answer->result = CALL;
	return XDP_TX;
}
"""
FRAME = bytes(range(64))
ROOM = 96


class Answer(NamedTuple):
    """r0 as a signed number, the bytes that the program may have written, and the frame."""

    result: int
    room: bytes
    frame: bytes | None


class Library:
    """The card. `call`: an expression with the arguments `a`, `b` and `c`, `question->text` and `answer->room`, both of
    ROOM bytes; behind `declarations`."""

    def __init__(self, build, backend, call, declarations="", *, unsafe=False, **sizes):
        sizes = sizes or ({} if backend == "linux" else {"threads": 1})  # as many CPUs as a linux device has
        self.nic = bpfnic.Nic(backend, DeviceOptions(**sizes))
        try:
            obj = build(HEAD.replace("CALL", call).replace("DECLARATIONS", declarations))
            self.program = self.nic.load(obj, unsafe=unsafe)
        except BaseException:
            self.nic.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.nic.close()

    def ask(self, *arguments, text=b"", frame=FRAME) -> Answer:
        numbers = [number & (1 << 64) - 1 for number in arguments]
        question = struct.pack("<4Q", *numbers, *[0] * (4 - len(numbers))) + text.ljust(ROOM, b"\0")
        self.nic.maps["questions"].device_map.update(bytes(4), [question])
        self.nic.maps["answers"].device_map.update(bytes(4), [bytes(8 + ROOM)])
        run = self.program.test_run(frame)
        assert run.action.name == "XDP_TX", run
        (answer,) = self.nic.maps["answers"].device_map.lookup(bytes(4))
        return Answer(struct.unpack_from("<q", answer)[0], answer[8 : 8 + ROOM], run.data)

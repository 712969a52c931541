"""A device with one map under test, reached by a program and by the host with the same few operations.

The program does what a frame asks for and leaves the result in an array, so that the same requests go to the golden NIC
and to the running kernel. Results are 0 or a positive error number, and values bytes; a look-up that finds nothing is
None. One CPU unless a test asks golden for more: the kernel backend is pinned to one.
"""

import struct
from collections.abc import Callable

from bpfnic.host.device import Arrival, Device, DeviceMap, DeviceOptions
from bpfnic.host.linux.device import open_device as open_linux
from bpfnic.host.maps import MapDefinition
from bpfnic.sim.golden.device import open_device as open_golden
from bpfnic.spec.programs import XdpAction

BACKENDS = {"golden": open_golden, "linux": open_linux}

PROGRAM = """
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
struct value { __u8 bytes[VALUE]; };
struct request { __u8 ethernet[16]; __u64 operation, flags; struct value value; __u8 key[KEY_ROOM]; };
struct answer { __s64 code; struct value value; };
struct {
	__uint(type, TYPE);
	__uint(map_flags, FLAGS);
	__uint(max_entries, ENTRIES);
	__uint(key_size, KEY);
	__uint(value_size, VALUE);
} table SEC(".maps");
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct answer);
} answers SEC(".maps");

SEC("xdp") int program(struct xdp_md *ctx)
{
	struct request *request = (void *)(long)ctx->data;
	__u32 first = 0;
	struct answer *answer = bpf_map_lookup_elem(&answers, &first);
	if ((void *)(request + 1) > (void *)(long)ctx->data_end || !answer)
		return XDP_ABORTED;
	struct value *value = &answer->value;
	switch (request->operation) {
#ifdef QUEUE
	case 1:
		answer->code = bpf_map_push_elem(&table, &request->value, request->flags);
		break;
	case 2:
		answer->code = bpf_map_pop_elem(&table, value);
		break;
	case 3:
		answer->code = bpf_map_peek_elem(&table, value);
		break;
#else
	case 1:
		answer->code = bpf_map_update_elem(&table, request->key, &request->value, request->flags);
		break;
	case 2:
		answer->code = bpf_map_delete_elem(&table, request->key);
		break;
	case 3:
		value = bpf_map_lookup_elem(&table, request->key);
		answer->code = value ? 0 : -2;
		if (value) {
			answer->value = *value;
			if (request->flags)
				value->bytes[0]++;
		}
		break;
#endif
	default:
		return XDP_ABORTED;
	}
	return XDP_PASS;
}
"""
UPDATE, DELETE, LOOKUP = PUSH, POP, PEEK = range(1, 4)


def outcome(action: Callable[[], object]) -> int:
    """What the host's operation says: 0 or the error number."""
    try:
        action()
    except OSError as error:
        assert error.errno
        return error.errno
    return 0


class MapCard:
    """One map of a type, with `key` and `value` bytes and `entries`, on a backend."""

    def __init__(self, build, backend: str, kind: str, *, key: int = 4, value: int = 8, entries: int, flags: str = "0",
                 cpus: int = 1):  # fmt: skip
        names = {"TYPE": f"BPF_MAP_TYPE_{kind}", "KEY": key, "KEY_ROOM": max(key, 1), "VALUE": value,
                 "ENTRIES": entries, "FLAGS": flags}  # fmt: skip
        define = [f"{name}={text}" for name, text in names.items()]
        obj = build(PROGRAM, define=define + (["QUEUE=1"] if kind in ("QUEUE", "STACK") else []))
        self.device: Device = BACKENDS[backend](DeviceOptions(threads=cpus, ports=1))
        self.value_bytes = value
        self.cpu = 0  # the CPU that the program runs on
        try:
            self.maps = {name: self.device.create_map(found) for name, found in obj.maps.items()}
            self.device.attach(0, self.device.load(obj.program(), self.maps))
        except BaseException:
            self.device.close()
            raise
        self.table: DeviceMap = self.maps["table"]

    def __enter__(self) -> "MapCard":
        return self

    def __exit__(self, *_: object) -> None:
        self.device.close()

    @property
    def definition(self) -> MapDefinition:
        return self.table.definition

    # -- by the program

    def _ask(self, operation: int, key: bytes = b"", value: bytes = b"", flags: int = 0) -> tuple[int, bytes]:
        """Error number and value that the program left."""
        data = struct.pack("<16xQQ", operation, flags) + value.ljust(self.value_bytes, b"\0") + key + bytes(8)
        others = [Arrival(0, bytes(64))] * self.cpu  # frame n is CPU n's; these ask for nothing
        packet = self.device.run([*others, Arrival(0, data.ljust(64, b"\0"))]).packets[-1]
        assert packet.action is XdpAction.XDP_PASS, packet
        (answer,) = self.maps["answers"].lookup(bytes(4))
        return -struct.unpack_from("<q", answer)[0], answer[8 : 8 + self.value_bytes]

    def update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        return self._ask(UPDATE, key, value, flags)[0]

    def delete(self, key: bytes) -> int:
        return self._ask(DELETE, key)[0]

    def lookup(self, key: bytes, add: bool = False) -> bytes | None:
        """The value that the program saw; with `add` it increments the first byte then."""
        code, value = self._ask(LOOKUP, key, flags=int(add))
        return None if code else value

    def push(self, value: bytes, flags: int = 0) -> int:
        return self._ask(PUSH, value=value, flags=flags)[0]

    def pop(self) -> tuple[int, bytes]:
        return self._ask(POP)

    def peek(self) -> tuple[int, bytes]:
        return self._ask(PEEK)

    # -- by the host

    def host_update(self, key: bytes, value: bytes, flags: int = 0) -> int:
        return outcome(lambda: self.table.update(key, [value], flags))

    def host_delete(self, key: bytes) -> int:
        return outcome(lambda: self.table.delete(key))

    def host_pop(self, key: bytes = b"") -> bytes | None:
        return self._found(self.table.pop, key)

    def host_lookup(self, key: bytes) -> bytes | None:
        return self._found(self.table.lookup, key)

    def _found(self, find: Callable[[bytes], list[bytes]], key: bytes) -> bytes | None:
        try:
            (value,) = find(key)
        except FileNotFoundError:
            return None
        return value

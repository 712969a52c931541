"""The 32-bit addresses that a program sees, on the hardware and on the golden model alike.

A thread's windows (context, stack, packet) stand at the same address for every thread; map values are shared. An
address is base + offset computed in 64 bits and valid below 2**32. Nothing lies in the first 64 KiB, so that NULL plus
a field's offset always traps.

    0x0001_0000  context         64 bytes, read only, natural alignment: of an XDP program
    0x0001_0200  skb context    256 bytes, natural alignment: of a tc program, which may do with each word what
                                spec.programs says; helpers don't reach it
    0x0002_0000  stack          512 bytes, natural alignment; r10 starts at 0x0002_0200
    0x0002_0200  firmware stack 512 bytes more of it, which the firmware's frame alone reaches; its r10 is 0x0002_0400.
                                The lower half of them is where the words of the skb context are kept
    0x0004_0000  packet buffer  buffer_bytes; only data_meta <= address < data_end may be accessed, any alignment
    0x1000_0000  map values     map_bytes, any alignment
    0x2000_0000  map handles    what a program passes as `struct bpf_map *`, with the key's size in it; not memory
    0x3000_0000  code           the program store, 8 bytes a slot: pointers to functions; not memory
"""

CONTEXT = 0x0001_0000
CONTEXT_BYTES = 64
SKB_CONTEXT = 0x0001_0200  # the low bits are those of where its words are kept, behind the stack
SKB_CONTEXT_BYTES = 256  # struct __sk_buff, and behind it what the firmware alone reaches

STACK = 0x0002_0000
STACK_BYTES = 512  # for the whole chain of frames, as MAX_BPF_STACK
STACK_TOP = STACK + STACK_BYTES
FRAMES = 8  # MAX_CALL_FRAMES
FIRMWARE_FRAME = FRAMES  # one more, of a privileged routine (isa.Group.FIRMWARE); it calls no function
STACK_WINDOW_BYTES = 2 * STACK_BYTES  # with what is that frame's
FIRMWARE_STACK_TOP = STACK + STACK_WINDOW_BYTES
FIRMWARE_STACK_BYTES = STACK_WINDOW_BYTES - STACK_BYTES - SKB_CONTEXT_BYTES  # that a routine may use
FRAME_ALIGN = 16

PACKET = 0x0004_0000
HEADROOM = 256  # XDP_PACKET_HEADROOM: where a received frame's first byte lies in its buffer
FRAME_HEADER = 40  # sizeof(struct xdp_frame): bpf_xdp_adjust_head keeps data at or above it
METADATA_BYTES = 255  # of skb_shared_info.meta_len: bpf_xdp_adjust_meta leaves no more between data_meta and data
METADATA_ALIGN = 4
TAIL_RESERVE = 320  # sizeof(struct skb_shared_info), aligned: bpf_xdp_adjust_tail keeps data_end below it
ETH_HLEN = 14  # neither helper leaves less

MAP_VALUES = 0x1000_0000
MAP_HANDLES = 0x2000_0000
HANDLE_KEY_BIT = 16  # from here on a handle has the bytes of a key, less one
MAX_KEY_BYTES = 64
INDEX_BYTES = 4  # an array's key
MAX_CHECKSUM_BYTES = 4096  # of bpf_csum_diff's arguments: no value and no packet has more
CODE = 0x3000_0000
CODE_BYTES = 0x1000_0000
CODE_SLOT_BYTES = 8

# A shared access is atomic within one row of map memory. One that crosses a row's end is two accesses, the lower
# addresses first, and each has its own place in the order that the device records.
ROW_BYTES = 16


def map_handle(index: int, key_bytes: int = INDEX_BYTES) -> int:
    """The address that stands for map `index` in a program (`struct bpf_map *`). It says how long the map's keys are,
    so that a core need not ask before it reads one; a handle with another size is none."""
    return MAP_HANDLES + (key_bytes - 1 << HANDLE_KEY_BIT) + 16 * index


def handle_key_bytes(handle: int) -> int:
    """Bytes of the keys that a handle tells of: 1 to MAX_KEY_BYTES, of whatever number."""
    return (handle >> HANDLE_KEY_BIT) % MAX_KEY_BYTES + 1


def code_address(slot: int) -> int:
    """The address of slot `slot` of the program store."""
    return CODE + CODE_SLOT_BYTES * slot


def data_hard_end(buffer_bytes: int) -> int:
    """Offset in the buffer that data_end may not pass (kernel: xdp_data_hard_end): 1,728 of a 2,048-byte buffer."""
    return buffer_bytes - TAIL_RESERVE

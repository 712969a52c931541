"""What tail calls take of frames and stack: at the very limit a program runs, and as in the running kernel; one frame
or 16 bytes beyond it the driver refuses what would lead there, and a program that nobody verified traps."""

import errno

import pytest

import bpfnic
from bpfnic.spec.addresses import FRAMES, STACK_BYTES

FRAME = bytes(64)
LEAST = 16  # bytes of a function that calls another
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC

MAP = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 8); __type(key, __u32);
         __array(values, int(struct xdp_md *)); } NAME SEC(".maps")"""
JUMP = "bpf_tail_call(ctx, &jumps, {});"
MISSED = 77


def array(name="jumps", **programs):
    """A PROG_ARRAY, with programs by "at" and their index."""
    values = ", ".join(f"[{place.removeprefix('at')}] = (void *)&{held}" for place, held in programs.items())
    declared = "".join(f"int {held}(struct xdp_md *ctx);\n" for held in programs.values())
    return declared + MAP.replace("NAME", name) + (f" = {{ .values = {{ {values} }} }}" if values else "") + ";\n"


def nested(name, frames, stack, body="", result=2, last=LEAST):
    """A program of so many functions, one below the other, that together use so many bytes of stack, the last one
    `last` of them where there are several, and it does `body`. What they return is the last one's, with a digit of each
    behind it."""
    below = [LEAST] * (frames - 2) + [last] if frames > 1 else []
    sizes = [stack - sum(below), *below]
    functions = []
    for level in reversed(range(frames)):
        head = f'SEC("xdp") int {name}(' if level == 0 else f"static __attribute__((noinline)) int {name}_{level}("
        size = sizes[level] if level in (0, frames - 1) else 0  # others take their least, whatever they use
        use = f'asm volatile("*(u64 *)(r10 - {size}) = r1" ::: "memory");' if size else ""
        last = f'{body} int left = {result}; asm volatile("" : "+r"(left)); return left;'
        inner = last if level == frames - 1 else f"return 10 * {name}_{level + 1}(ctx) + {frames - level};"
        functions.append(f"{head}struct xdp_md *ctx) {{ {use} {inner} }}\n")
    return "".join(functions)


def returned(frames, result):
    """What `nested` returns where the last function returns `result`."""
    for level in range(2, frames + 1):
        result = 10 * result + level
    return result


def caller(name, above, stack, index=0, jumps="jumps"):
    """A program whose last function, `above` others with `stack` bytes over it, makes a tail call."""
    jump = JUMP.format(index).replace("jumps", jumps)
    return nested(name, above + 1, stack, jump, MISSED, last=0)


@pytest.fixture(params=["golden", "rtl"])
def nic(request):
    with bpfnic.Nic(request.param) as nic:
        yield nic


@pytest.fixture
def golden():
    with bpfnic.Nic("golden") as golden:
        yield golden


def opened(source, *parts):
    return bpfnic.open(source("".join(parts)))


def as_it_was(nic):
    """What a refused load leaves behind."""
    device = nic.device
    return nic.programs, nic.maps, device._programs, device._maps


# The limit


@pytest.mark.parametrize("above", [0, 1, 2, 6, 7])
def test_all_frames(card, source, above):
    obj = opened(source, array(at0="target"), caller("enter", above, LEAST * above),
                 nested("target", FRAMES - above, LEAST * (FRAMES - above)))  # fmt: skip
    result = card.load(obj, "enter").test_run(FRAME)
    assert result.retval == returned(above + 1, returned(FRAMES - above, 2))


@pytest.mark.parametrize("above", [1, 2, 7])
def test_a_frame_more_is_refused_and_would_trap(nic, source, above):
    parts = (array(at0="target"), caller("enter", above, LEAST * above),
             nested("target", FRAMES - above + 1, LEAST * FRAMES))  # fmt: skip
    with pytest.raises(bpfnic.BpfnicError) as caught:
        nic.load(opened(source, *parts), "enter")
    frames = "1 frame" if above == 1 else f"{above} frames"
    assert str(caught.value) == (
        "map 'jumps': program target at 0: tail calls would take 9 frames, of the 8 that there are: enter tail-calls "
        f"jumps[0] (target) from enter_{above}(), {frames} deep; target needs {FRAMES - above + 1}")  # fmt: skip
    assert as_it_was(nic) == ({}, {}, [], [])
    result = nic.load(opened(source, *parts), "enter", unsafe=True).test_run(FRAME)
    assert (result.cause, result.verified) == ("CALL_DEPTH", False)


@pytest.mark.parametrize("above", [16, 48, 240])
@pytest.mark.parametrize("frames", [1, 2])
def test_all_of_the_stack(card, source, above, frames):
    obj = opened(source, array(at0="target"), caller("enter", 1, above),
                 nested("target", frames, STACK_BYTES - above))  # fmt: skip
    result = card.load(obj, "enter").test_run(FRAME)
    assert result.retval == returned(2, returned(frames, 2))


@pytest.mark.parametrize("above", [16, 48, 240])
@pytest.mark.parametrize(
    ("frames", "last", "cause"), [(1, LEAST, "MEMORY_ACCESS"), (2, LEAST, "MEMORY_ACCESS"), (3, 0, "CALL_DEPTH")]
)
def test_sixteen_bytes_more_are_refused_and_would_trap(nic, source, above, frames, last, cause):
    needs = STACK_BYTES - above + 16
    parts = array(at0="target"), caller("enter", 1, above), nested("target", frames, needs, last=last)
    with pytest.raises(bpfnic.BpfnicError) as caught:
        nic.load(opened(source, *parts), "enter")
    assert str(caught.value) == (
        "map 'jumps': program target at 0: tail calls would take 528 bytes of stack, of the 512 that there are: enter "
        f"tail-calls jumps[0] (target) from enter_1(), {above} bytes deep; target needs {needs}")  # fmt: skip
    assert as_it_was(nic) == ({}, {}, [], [])
    assert nic.load(opened(source, *parts), "enter", unsafe=True).test_run(FRAME).cause == cause


# Chains

def chain(*aboves, last):
    """Programs p0, p1, …, each of which tail-calls the next with so many frames over it; the last needs `last`."""
    programs = {f"at{number + 1}": f"p{number + 1}" for number in range(len(aboves))}
    parts = [caller(f"p{number}", above, LEAST * above, number + 1) for number, above in enumerate(aboves)]
    return array(**programs), *parts, nested(f"p{len(aboves)}", last, LEAST * last)


@pytest.mark.parametrize("aboves", [(1, 1), (3, 0, 2), (0, 4, 0, 1)])
def test_a_chain_of_programs(nic, source, aboves):
    left = FRAMES - sum(aboves)
    expected = returned(left, 2)
    for above in reversed(aboves):
        expected = returned(above + 1, expected)
    assert nic.load(opened(source, *chain(*aboves, last=left)), "p0").test_run(FRAME).retval == expected % (1 << 32)
    nic.programs["p0"].unload()


def test_a_chain_is_told_as_a_whole(golden, source):
    with pytest.raises(bpfnic.BpfnicError) as caught:
        golden.load(opened(source, *chain(3, 0, 2, last=4)), "p0")
    assert str(caught.value).endswith(
        "would take 9 frames, of the 8 that there are: p0 tail-calls jumps[1] (p1) from p0_3(), 3 frames deep; "
        "p1 tail-calls jumps[2] (p2); p2 tail-calls jumps[3] (p3) from p2_2(), 2 frames deep; p3 needs 4"
    )
    assert as_it_was(golden) == ({}, {}, [], [])


def test_a_long_chain_is_told_in_short(golden, source):
    with pytest.raises(bpfnic.BpfnicError) as caught:
        golden.load(opened(source, *chain(1, 1, 1, 1, 1, 1, 1, last=2)), "p0")
    assert str(caught.value).count("tail-calls") == 4
    assert str(caught.value).endswith("; …; p6 tail-calls jumps[7] (p7) from p6_1(), 1 frame deep; p7 needs 2")


def test_what_turns_in_a_circle(card, source):
    """As often as a packet may where the program's own function calls."""
    obj = opened(source, array(at0="enter", at1="other"), caller("enter", 0, 0, 1), caller("other", 0, 0, 0))
    assert card.load(obj, "enter").test_run(FRAME).retval == MISSED


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_from_functions(nic, source, length):
    """There is no room for it: each turn takes a frame more."""
    programs = [f"p{number}" for number in range(length)]
    values = {f"at{number}": name for number, name in enumerate(programs)}
    following = (caller(name, int(name == "p0"), 0, (at + 1) % length) for at, name in enumerate(programs))
    parts = array(**values), *following
    with pytest.raises(bpfnic.BpfnicError, match="would take 9 frames, of the 8 that there are: p0 tail-calls jumps"):
        nic.load(opened(source, *parts), "p0")
    assert as_it_was(nic) == ({}, {}, [], [])
    result = nic.load(opened(source, *parts), "p0", unsafe=True).test_run(FRAME)
    assert result.cause == "CALL_DEPTH"


def test_a_circle_is_told_by_its_times(golden, source):
    obj = opened(source, array(at0="p"), caller("p", 1, LEAST))
    with pytest.raises(bpfnic.BpfnicError) as caught:
        golden.load(obj)
    assert str(caught.value).endswith("p tail-calls jumps[0] (p) from p_1(), 1 frame deep, 7 times; p needs 2")


def test_only_what_the_index_may_be(card, source):
    """Where the index is known, what else the map holds doesn't matter; a function that is called with several has
    several. Those that the device can't say are all."""
    text = """
        static __attribute__((noinline)) int call(struct xdp_md *ctx, __u32 index)
        {
            int left = 5;

            asm volatile("" : "+r"(left));
            bpf_tail_call(ctx, &jumps, index);
            return left;
        }
        SEC("xdp") int enter(struct xdp_md *ctx) { return 100 * call(ctx, 1) + 10 * call(ctx, 2) + call(ctx, 7); }
        __u32 which;
        SEC("xdp") int any(struct xdp_md *ctx) { return call(ctx, which); }
    """
    obj = opened(source, array(at1="first", at2="second", at3="large"), text,
                 nested("first", 1, 0, result=3), nested("second", 7, 112, result=1),
                 nested("large", 8, 128))  # fmt: skip
    assert card.load(obj, "enter").test_run(FRAME).retval == 300 + 10 * returned(7, 1) + 5
    if card.device.name == "linux":
        return
    with pytest.raises(bpfnic.BpfnicError, match=r"^program any: tail calls .* any tail-calls jumps\[3\] \(large\)"):
        card.load(obj, "any")
    assert set(card.programs) == {"enter", "first", "second", "large"}
    del card.maps["jumps"][3]
    assert card.load(obj, "any").test_run(FRAME).retval == 5


# What the device has changes

PARTS = array(), caller("enter", 2, 32), nested("fits", 6, 96), nested("large", 7, 112), nested("wide", 1, 496)


def load(nic, source, *names):
    obj = opened(source, *PARTS)
    return [nic.load(obj, name) for name in names]


def test_a_refused_update_leaves_the_old_entry(nic, source):
    enter, fits, large, wide = load(nic, source, "enter", "fits", "large", "wide")
    jumps = nic.maps["jumps"]
    jumps[0] = fits
    for held, why in ((large, "9 frames, of the 8"), (wide, "528 bytes of stack, of the 512")):
        with pytest.raises(OSError, match=f"tail calls would take {why} .*: enter tail-calls") as caught:
            jumps[0] = held
        assert caught.value.errno == errno.EINVAL
        assert jumps[0] is fits and len(jumps) == 1
        assert enter.test_run(FRAME).retval == returned(3, returned(6, 2))
    jumps[1] = large  # which nobody calls
    jumps[0] = fits
    with pytest.raises(OSError, match="9 frames"):
        jumps.device_map.set_program(bytes(4), large.loaded)
    del jumps[0]
    assert enter.test_run(FRAME).retval == returned(3, MISSED)


def test_a_link_further_on_is_refused(golden, source):
    """The map that changes is another one than the first of the chain."""
    parts = (array(), array("more"), caller("enter", 2, 32), caller("middle", 2, 32, 5, jumps="more"),
             nested("fits", 6, 96), nested("wide", 1, 464))  # fmt: skip
    obj = opened(source, *parts)
    golden.load(obj, "enter")
    middle, wide = golden.load(obj, "middle"), golden.load(obj, "wide")
    golden.maps["more"][5] = golden.load(obj, "fits")
    first = r"enter tail-calls jumps\[0\] \(middle\) from enter_2\(\), .* deep; middle tail-calls "
    with pytest.raises(OSError, match=rf"10 frames, .*: {first}more\[5\] \(fits\) .*; fits needs 6"):
        golden.maps["jumps"][0] = middle
    del golden.maps["more"][5]
    golden.maps["jumps"][0] = middle
    with pytest.raises(OSError, match=rf"10 frames, .*: {first}more\[5\] \(fits\) .*; fits needs 6"):
        golden.maps["more"][5] = golden.programs["fits"]
    with pytest.raises(OSError, match=rf"528 bytes of stack, .*: {first}more\[5\] \(wide\) .*, 32 bytes deep; wide"):
        golden.maps["more"][5] = wide
    assert list(golden.maps["more"]) == []

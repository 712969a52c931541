"""What tail calls take of frames and stack: at the very limit a program runs, and as in the running kernel; one frame
or 16 bytes beyond it the driver refuses what would lead there, and a program that nobody verified traps."""

import errno

import pytest

import bpfnic
from bpfnic.host.device import Arrival
from bpfnic.spec.addresses import FRAMES, STACK_BYTES
from tests.host.deepprograms import LEAST, MISSED, array, caller, chain, nested, returned

FRAME = bytes(64)
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


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


# What a function takes

BELOW = """
static __attribute__((noinline)) int below(__u64 *p)
{
    volatile __u64 own = 1;

    *(volatile __u64 *)(p - AT) = 5;
    return own;
}
SEC("xdp") int target(struct xdp_md *ctx)
{
    __u64 kept;

    asm volatile("" : "=r"(kept));
    return below(&kept);
}
"""


def test_a_frame_holds_what_others_use_of_it(card, source):
    """Below the pointer that they got, which the code of the function alone doesn't tell."""
    assert card.load(opened(source, BELOW.replace("AT", "2"))).test_run(FRAME).retval == 1


@pytest.mark.parametrize("above", [32, 48])
def test_and_tail_calls_count_it(nic, source, above):
    """`target` has 464 bytes, of which it uses 8 itself; `below` has 16 behind them."""
    obj = opened(source, array(at0="target"), caller("enter", 1, above), BELOW.replace("AT", "57"))
    if above + 480 <= STACK_BYTES:
        assert nic.load(obj, "enter").test_run(FRAME).retval == returned(2, 1)
    else:
        with pytest.raises(bpfnic.BpfnicError, match="528 bytes of stack, .*, 48 bytes deep; target needs 480"):
            nic.load(obj, "enter")


INDEXED = """
SEC("xdp") int target(struct xdp_md *ctx)
{
    __u32 at = ctx->rx_queue_index & 7;

    asm volatile("r1 = r10\\nr2 = %0\\nr2 <<= 3\\nr1 += r2\\n*(u64 *)(r1 - 320) = r2" ::"r"(at) : "r1", "r2", "memory");
    return 2;
}
"""


def test_a_stack_that_is_indexed_takes_what_the_verifier_saw(card, source):
    obj = opened(source, array(at0="target"), caller("enter", 1, 192), INDEXED)
    assert card.load(obj, "enter").test_run(FRAME).retval == returned(2, 2)


HELPED = """
static __attribute__((noinline)) int helped(struct xdp_md *ctx)
{
    long found = 0;

    bpf_strtol("12", 2, 0, &found);
    return found;
}
SEC("xdp") int target(struct xdp_md *ctx) { return helped(ctx) - 10; }
"""


@pytest.mark.parametrize("above", [5, 6])
def test_a_helper_that_is_firmware_takes_a_frame(nic, source, above):
    """Three of the target: its own function, the one that calls the helper, and the helper."""
    obj = opened(source, array(at0="target"), caller("enter", above, LEAST * above), HELPED)
    if above + 3 <= FRAMES:
        assert nic.load(obj, "enter").test_run(FRAME).retval == returned(above + 1, 2)
    else:
        with pytest.raises(bpfnic.BpfnicError, match="9 frames, of the 8 that there are: .*; target needs 3"):
            nic.load(obj, "enter")


CALLED_BACK = """
static __attribute__((noinline)) int hop(struct xdp_md *ctx)
{
    int left = 0;

    asm volatile("" : "+r"(left));
    bpf_tail_call(ctx, &jumps, 0);
    return left;
}
static long step(__u32 turn, struct xdp_md **ctx) { return hop(*ctx) & 1; }
SEC("xdp") int enter(struct xdp_md *ctx)
{
    struct xdp_md *held = ctx;

    return bpf_loop(4, step, &held, 0);
}
"""


@pytest.mark.parametrize("frames", [5, 6])
def test_what_calls_back_counts_with_its_callback(card, source, frames):
    """Above the tail call are the callback, the helper, which is firmware, and the program's own function."""
    obj = opened(source, array(at0="target"), CALLED_BACK, nested("target", frames, LEAST * frames, result=11))
    if frames + 3 <= FRAMES or card.device.name == "linux":
        assert card.load(obj, "enter").test_run(FRAME).retval == (1 if returned(frames, 11) & 1 else 4)
    else:
        with pytest.raises(bpfnic.BpfnicError, match=r"9 frames, .* from hop\(\), 3 frames deep; target needs 6"):
            card.load(obj, "enter")


PASSED_ON = """
static long step(__u32 turn, void *context) { return NAME_1(0) & 1; }
static long once(__u32 turn, void *context) { return 1; }
static __attribute__((noinline)) int loop(void *callback)
{
    return bpf_loop(2, once, 0, 0) + bpf_loop(2, callback, 0, 0);
}
SEC("xdp") int enter(struct xdp_md *ctx) { return loop(step) + loop(once); }
"""


@pytest.mark.parametrize("frames", [4, 5])
def test_a_callback_that_was_passed_on(card, source, frames):
    """It stands below the helper that calls it, whichever function took its address: behind the program's own function,
    another one, the helper, which is firmware, and itself there is room for four more."""
    below = nested("NAME", frames + 1, 0, result=2).partition('SEC("xdp")')[0]
    obj = opened(source, below, PASSED_ON)
    if frames <= 4 or card.device.name == "linux":
        assert card.load(obj).test_run(FRAME).retval == 3 + (returned(frames, 2) & 1 or 2)
    else:
        with pytest.raises(bpfnic.BpfnicError, match="a call chain of more than 8 functions"):
            card.load(obj)


# Packets in flight

SLOW = 'for (int i = 0; i < 200; i++) asm volatile("" ::: "memory");'


def test_a_packet_in_flight_may_be_in_what_was_there(source):
    """Either of two links of a chain fits, both don't. The host takes one away and puts in the other, again and again,
    while packets are on their way from the first to the second."""
    slow = caller("middle", 2, 32, jumps="more").replace("bpf_tail_call", SLOW + " bpf_tail_call")
    obj = opened(source, array(), array("more"), caller("enter", 2, 32), slow, nested("last", 5, 80))
    with bpfnic.Nic("rtl") as nic:
        nic.load(obj, "enter").attach()
        places = {"jumps": nic.load(obj, "middle"), "more": nic.load(obj, "last")}
        turns, waits, there = 0, 0, "more"

        def change(progress):
            nonlocal turns, waits, there
            other = "more" if there == "jumps" else "jumps"
            if nic.maps[there]:
                del nic.maps[there][0]
            try:
                nic.maps[other][0] = places[other]
            except OSError as error:
                assert "as it was for packets in flight" in error.strerror
                waits += 1
            else:
                turns, there = turns + 1, other

        traffic = nic.run([Arrival(number % 2, FRAME) for number in range(20_000)], on_step=change)
    causes = {packet.cause.name for packet in traffic.packets}
    assert "CALL_DEPTH" not in causes and "MEMORY_ACCESS" not in causes
    assert turns > 5 and waits > 5


# What nobody verified, and what the commands say

ABOVE = (caller("enter", 2, 32), nested("large", 7, 112))
TOLD = ("tail calls would take 9 frames, of the 8 that there are: enter tail-calls jumps[0] (large) from enter_2(), "
        "2 frames deep; large needs 7")  # fmt: skip


def test_what_nobody_verified_stays_apart(golden, source):
    """A verified program's tail calls lead to no other: its results would be somebody else's."""
    obj = opened(source, array(), *ABOVE)
    enter, large = golden.load(obj, "enter"), golden.load(obj, "large", unsafe=True)
    apart = "program large, which nobody verified, and program enter, which is verified, can't share map jumps"
    with pytest.raises(OSError, match=apart) as caught:
        golden.maps["jumps"][0] = large
    assert caught.value.errno == errno.EINVAL
    large.unload()
    with pytest.raises(OSError, match="9 frames"):
        golden.maps["jumps"][0] = golden.load(obj, "large")
    assert enter.test_run(FRAME).retval == returned(3, MISSED)


def test_what_is_verified_stays_apart(golden, source):
    obj = opened(source, array(), *ABOVE)
    golden.load(obj, "enter", unsafe=True)
    apart = "program large, which is verified, and program enter, which nobody verified, can't share map jumps"
    with pytest.raises(OSError, match=apart):
        golden.maps["jumps"][0] = golden.load(obj, "large")


def test_run_refuses_it(refused, source):
    assert refused(source("".join((array(at0="large"), *ABOVE))), "--program", "enter").endswith(TOLD)
    rules = source('{"jumps": {"0": "large"}}', "rules.json")
    path = source("".join((array(), *ABOVE)))
    assert refused(path, "--program", "enter", "--map", rules).endswith(TOLD)


def test_unsafe_runs_it(run, source):
    status, out, err = run(source("".join((array(at0="large"), *ABOVE))), "--program", "enter", "--unsafe")
    assert status == 0 and "CALL_DEPTH" in out and "unverified" in out


def test_a_tc_program(nic, source):
    """What runs around it takes none of the frames."""
    parts = array(at0="fits", at1="large"), caller("enter", 2, 32), nested("fits", 6, 480), nested("large", 7, 112)
    obj = opened(source, "".join(parts).replace("xdp_md", "__sk_buff").replace('SEC("xdp")', 'SEC("tc")'))
    assert nic.load(obj, "enter").test_run(FRAME).retval == returned(3, returned(6, 2))
    with pytest.raises(OSError, match="9 frames"):
        nic.maps["jumps"][0] = nic.programs["large"]


UNNAMED = """
SEC("xdp") __attribute__((naked)) int enter(struct xdp_md *ctx)
{
    asm volatile("call hop\\nr0 = 2\\nexit\\nhop:\\nr2 = jumps ll\\nr3 = 0\\ncall 12\\nr0 = 1\\nexit");
}
"""


def test_a_function_without_a_name(golden, source):
    """It is told by the one that it stands in."""
    with pytest.raises(bpfnic.BpfnicError) as caught:
        golden.load(opened(source, array(at0="large"), UNNAMED, nested("large", 8, 128)), "enter")
    assert "enter tail-calls jumps[0] (large) from enter(), 1 frame deep" in str(caught.value)


@pytest.mark.linux
def test_the_kernel_decides_for_itself(source):
    obj = opened(source, array(at0="large"), caller("enter", 7, 112), nested("large", 8, 512))
    with bpfnic.Nic("linux") as linux:
        result = linux.load(obj, "enter").test_run(FRAME)
    assert result.retval == returned(8, returned(8, 2)) % (1 << 32)

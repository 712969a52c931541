"""Tail calls and maps of programs, from C to what becomes of a packet: on the reference, the simulated hardware and the
running kernel, whose words are the expectation wherever it can be asked."""

import json
from errno import E2BIG, EINVAL, ENOENT

import pytest

import bpfnic
from bpfnic.host.linux import bpf

PROGRAMS = """
int first(struct xdp_md *ctx), second(struct xdp_md *ctx), again(struct xdp_md *ctx), deeper(struct xdp_md *ctx);
static int hidden(struct xdp_md *ctx);
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 8);
	__type(key, __u32);
	__array(values, int(struct xdp_md *));
} jumps SEC(".maps") = {
	.values = { [1] = (void *)&first, [2] = (void *)&second, [3] = (void *)&again, [5] = (void *)&hidden,
                [6] = (void *)&deeper },
};
__u32 which, turns, missed, returned;

SEC("xdp") int enter(struct xdp_md *ctx)
{
	bpf_tail_call(ctx, &jumps, which);
	missed++;
	return XDP_ABORTED;
}
SEC("xdp") int first(struct xdp_md *ctx) { return XDP_DROP; }
SEC("xdp") int second(struct xdp_md *ctx)
{
	return ctx->data_end - ctx->data == 64 ? XDP_TX : XDP_ABORTED;
}
SEC("xdp") static int hidden(struct xdp_md *ctx) { return XDP_PASS; }

// Itself, as often as it can, with a miss at every turn.
SEC("xdp") int again(struct xdp_md *ctx)
{
	turns++;
	bpf_tail_call(ctx, &jumps, 0);
	bpf_tail_call(ctx, &jumps, 1000);
	bpf_tail_call(ctx, &jumps, 3);
	return turns;
}

// From functions: what they call returns here.
static __attribute__((noinline)) int call(struct xdp_md *ctx, __u32 index)
{
	volatile __u64 kept[8] = {index};

	bpf_tail_call(ctx, &jumps, index);
	return 100 + kept[0];
}
SEC("xdp") int deeper(struct xdp_md *ctx)
{
	volatile __u64 kept[4] = {7};

	returned = call(ctx, 1);
	returned = returned * 1000 + call(ctx, 4);
	returned = returned * 1000 + call(ctx, 2);
	return kept[0] == 7 ? XDP_PASS : XDP_ABORTED;
}
"""
FRAME = bytes(64)
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


@pytest.fixture
def obj(source):
    return bpfnic.open(source(PROGRAMS))


@pytest.fixture
def golden():
    with bpfnic.Nic("golden") as golden:
        yield golden


# What programs do


@pytest.mark.parametrize(
    ("index", "verdict", "missed"),
    [(1, 1, 0), (2, 3, 0), (5, 2, 0), (0, 0, 1), (7, 0, 1), (8, 0, 1), (0xFFFFFFFF, 0, 1)],
)
def test_goes_on_at_the_target_or_behind_the_call(card, obj, index, verdict, missed):
    obj.set_global("which", index)
    assert card.load(obj, "enter").test_run(FRAME).retval == verdict
    assert card.maps[".bss"]["missed"] == missed


def test_thirty_three_of_a_packet(card, obj):
    """`enter` calls, and `again` calls itself 32 times more; neither misses nor what other packets did counts."""
    obj.set_global("which", 3)
    program = card.load(obj, "enter")
    for number in (1, 2):
        assert program.test_run(FRAME).retval == number * 33
    assert card.maps[".bss"]["turns"] == 66 and card.maps[".bss"]["missed"] == 0


def test_the_targets_exit_is_the_functions(card, obj):
    obj.set_global("which", 6)
    assert card.load(obj, "enter").test_run(FRAME).retval == 2
    assert card.maps[".bss"]["returned"] == 1104003


def test_the_budget_counts_on(obj):
    obj.set_global("which", 3)
    with bpfnic.Nic("golden", budget=100) as card:
        result = card.load(obj, "enter").test_run(FRAME)
        assert (result.cause, result.instructions) == ("BUDGET", 100)


# Maps of programs


def test_initial_programs(obj):
    names = {1: "first", 2: "second", 3: "again", 5: "hidden", 6: "deeper"}
    assert obj.maps["jumps"].programs == names
    assert (obj.maps["jumps"].key_size, obj.maps["jumps"].value_size) == (4, 4)


def test_a_dictionary_of_programs(card, obj):
    program = card.load(obj, "enter")
    jumps = card.maps["jumps"]
    assert set(card.programs) == {"enter", "first", "second", "again", "hidden", "deeper"}
    assert {key: held.name for key, held in jumps.items()} == obj.maps["jumps"].programs
    assert jumps[1] is card.programs["first"] and len(jumps) == 5 and 0 not in jumps
    jumps[0] = card.programs["second"]
    assert program.test_run(FRAME).retval == 3
    jumps[0] = card.programs["first"]
    assert program.test_run(FRAME).retval == 1
    del jumps[0]
    assert program.test_run(FRAME).retval == 0
    assert jumps.device_map.dump() == {key.to_bytes(4, "little"): [jumps[key].name.encode()] for key in jumps}


def test_what_a_map_of_programs_refuses(card, obj, golden):
    card.load(obj, "enter")
    jumps = card.maps["jumps"]
    with pytest.raises(KeyError):
        jumps[0]
    with pytest.raises(KeyError):
        del jumps[7]
    with pytest.raises(OSError) as caught:
        jumps[8] = card.programs["first"]
    assert caught.value.errno == E2BIG
    with pytest.raises(OSError) as caught:
        del jumps[8]
    assert caught.value.errno == E2BIG
    for other in (golden.load(obj, "first"), "first", None):
        with pytest.raises(bpfnic.BpfnicError, match="map 'jumps': .* is no program loaded into this NIC"):
            jumps[0] = other
    with pytest.raises(OSError) as caught:
        jumps.device_map.update(bytes(4), [bytes(4)])
    assert caught.value.errno == EINVAL
    for key in (bytes(3), bytes(5)):
        with pytest.raises(OSError, match="a key has 4 bytes"):
            jumps.device_map.delete(key)


@pytest.mark.linux
def test_errors_are_the_kernels(obj):
    """Asked of bpf(2) itself, below what refuses first here."""
    with bpfnic.Nic("linux") as card:
        card.load(obj, "enter")
        fd = card.maps["jumps"].device_map.fd
        value = card.programs["first"].loaded.fd.to_bytes(4, "little")
        for index, error in ((8, E2BIG), (0xFFFFFFFF, E2BIG), (7, ENOENT)):
            key = index.to_bytes(4, "little")
            with pytest.raises(OSError) as caught:
                bpf.map_delete(fd, key)
            assert caught.value.errno == error
            if error == E2BIG:
                with pytest.raises(OSError) as caught:
                    bpf.map_update(fd, key, value)
                assert caught.value.errno == error
        with pytest.raises(OSError) as caught:
            bpf.map_lookup(fd, bytes(4), 4)
        assert caught.value.errno == ENOENT
        assert card.maps["jumps"].device_map.definition.value_size == 4


def test_a_program_in_a_map_stays_loaded(card, obj):
    entry = card.load(obj, "enter")
    first, jumps = card.programs["first"], card.maps["jumps"]
    with pytest.raises(bpfnic.BpfnicError, match="program first is in map jumps, at 1"):
        first.unload()
    jumps[1] = card.programs["second"]
    first.unload()
    assert "first" not in card.programs
    entry.unload()  # the others still use jumps
    for name in ("again", "deeper"):
        with pytest.raises(bpfnic.BpfnicError, match=f"program {name} is in map jumps"):
            card.programs[name].unload()
    for key in list(jumps):
        del jumps[key]
    for held in list(card.programs.values()):
        held.unload()
    assert card.programs == {} and card.maps == {}


def test_what_was_loaded_along_is_shared(card, obj):
    card.load(obj, "first").attach()
    assert card.maps == {}
    card.load(obj, "enter")
    assert card.maps["jumps"][1] is card.programs["first"]


def test_all_or_nothing(source, golden):
    """The last of the programs that are loaded together can't be: none of them is, and neither are the maps."""
    text = PROGRAMS.replace("return kept[0] == 7 ? XDP_PASS : XDP_ABORTED;", "return bpf_get_current_pid_tgid();")
    device = golden.device
    with pytest.raises(bpfnic.BpfnicError, match="program deeper: helper bpf_get_current_pid_tgid .14. at instruction"):
        golden.load(bpfnic.open(source(text)), "enter")
    assert (golden.programs, golden.maps, device._programs, device._maps) == ({}, {}, [], [])
    golden.run([])  # nothing is in flight: what was taken is free again
    golden.load(bpfnic.open(source(PROGRAMS, "right.bpf.c")), "enter")
    assert device._maps[0].base == 0 and device._programs[0].entry == 0


def test_a_name_that_another_object_has(source, golden):
    golden.load(bpfnic.open(source(PROGRAMS)), "first")
    with pytest.raises(bpfnic.BpfnicError, match="program first: another object's program of that name is loaded"):
        golden.load(bpfnic.open(source(PROGRAMS, "other.bpf.c")), "enter")
    assert list(golden.programs) == ["first"] and golden.maps == {}


def test_an_entry_behind_the_end(obj, golden):
    obj.maps["jumps"].max_entries = 6
    with pytest.raises(bpfnic.BpfnicError, match="map 'jumps': program deeper at 6: Argument list too long"):
        golden.load(obj, "enter")
    assert golden.programs == {} and golden.maps == {}


# One type of programs

KINDS = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __uint(key_size, 4); __uint(value_size, 4); }
	jumps SEC(".maps");
SEC("xdp") int enter(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 0); return XDP_DROP; }
SEC("xdp/name") int same(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp/devmap") int redirected(struct xdp_md *ctx) { return XDP_PASS; }
SEC("xdp.frags") int fragments(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 1); return XDP_PASS; }
"""


def test_programs_of_another_kind(source, golden):
    obj = bpfnic.open(source(KINDS))
    program = golden.load(obj, "enter")
    jumps = golden.maps["jumps"]
    jumps[0] = golden.load(obj, "same")
    assert program.test_run(FRAME).retval == 2
    redirected = golden.load(obj, "redirected")
    with pytest.raises(OSError, match=r"redirected \('xdp/devmap'\) and program enter \('xdp'\) can't share") as caught:
        jumps[0] = redirected
    assert caught.value.errno == EINVAL
    with pytest.raises(bpfnic.BpfnicError, match=r"program fragments \('xdp.frags'\) and program enter .* map jumps"):
        golden.load(obj, "fragments")
    assert list(jumps) == [0] and jumps[0].name == "same"


@pytest.mark.linux
def test_the_kernel_asks_for_one_kind_too(source):
    """A program of another attach type, put in below what refuses it here."""
    obj = bpfnic.open(source(KINDS))
    with bpfnic.Nic("linux") as card:
        card.load(obj, "enter")
        fd = card.maps["jumps"].device_map.fd
        code = bytes.fromhex("b700000002000000 9500000000000000")
        frags, devmap = 1 << 5, 35  # BPF_F_XDP_HAS_FRAGS, BPF_XDP_DEVMAP
        for more in ({"flags": frags}, {"attach_type": devmap}):
            program, _ = bpf.prog_load(6, code, **more)
            with pytest.raises(OSError) as caught:
                bpf.map_update(fd, bytes(4), program.to_bytes(4, "little"))
            assert caught.value.errno == EINVAL


# What an object may hold

TABLE = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 2); __type(key, __u32);
         __array(values, int(void *)); }
	jumps SEC(".maps") = { .values = { [1] = (void *)&helper } };
SEC("xdp") int enter(struct xdp_md *ctx) { bpf_tail_call(ctx, &jumps, 0); return helper(ctx); }
"""


@pytest.mark.parametrize("helper", ["__attribute__((noinline)) int helper(void *ctx) { return 2; }",
                                    "extern int helper(void *ctx) __ksym;"])  # fmt: skip
def test_what_is_no_program(source, helper):
    with pytest.raises(bpfnic.BpfnicError) as caught:
        bpfnic.open(source(helper + TABLE))
    assert str(caught.value).endswith("map 'jumps': at 1 is 'helper', which is no program")


def test_initial_values_of_other_maps_are_refused(source):
    text = """
        struct inner { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 1);
                       __type(key, __u32); __type(value, __u32); } one SEC(".maps");
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32);
                 __array(values, struct inner); } outer SEC(".maps") = { .values = { [1] = &one } };
        SEC("xdp") int enter(struct xdp_md *ctx) { __u32 k = 0; return bpf_map_lookup_elem(&outer, &k) ? 1 : 2; }
    """
    with pytest.raises(bpfnic.BpfnicError, match="map 'outer' has initial values .*PROG_ARRAY or a map of maps alone"):
        bpfnic.open(source(text))


@pytest.mark.parametrize(("key", "value", "why"), [(4, 8, "a program takes 4 bytes, not 8"),
                                                   (8, 4, "an array's key has 4 bytes, not 8")])  # fmt: skip
def test_sizes(source, golden, key, value, why):
    text = KINDS.replace("key_size, 4", f"key_size, {key}").replace("value_size, 4", f"value_size, {value}")
    with pytest.raises(bpfnic.BpfnicError) as caught:
        golden.load(bpfnic.open(source(text)), "enter")
    assert str(caught.value) == f"map jumps (PROG_ARRAY): {why}"


# The command line


def test_rules_name_programs(run, source):
    """Of a map without a type for its keys; one of the programs brings a map that the same rules fill."""
    text = KINDS + """
        struct { __uint(type, BPF_MAP_TYPE_ARRAY); __uint(max_entries, 2); __type(key, __u32); __type(value, __u32); }
            verdicts SEC(".maps");
        SEC("xdp") int looks(struct xdp_md *ctx)
        {
            __u32 key = 1, *verdict = bpf_map_lookup_elem(&verdicts, &key);
            return verdict ? *verdict : XDP_ABORTED;
        }
    """
    rules = source('{"verdicts": {"1": 3}, "jumps": {"0": "looks"}}', "rules.json")
    status, out, err = run(source(text), "--program", "enter", "--map", rules, "--json")
    assert (status, err) == (0, "")
    report = json.loads(out)
    assert report["packets"]["verdicts"] == {"XDP_TX": 420}
    assert report["maps"]["jumps"]["entries"] == [{"key": 0, "value": "looks"}]


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ('{"jumps": {"0": "nobody"}}', "has no program 'nobody'; it has enter, same, redirected, fragments"),
        ('{"jumps": {"0": 1}}', "map 'jumps': value: 1 is no program's name"),
        ('{"jumps": {"2": "same"}}', "map 'jumps': key 2: Argument list too long"),
        ('{"jumps": {"x": "same"}}', "map 'jumps': key: 'x' is no number or hex bytes of 4 bytes"),
        ('{"jumps": {"0": "redirected"}}', "tail calls stay within one type of programs"),
    ],
)
def test_rules_that_name_no_program(refused, source, rules, why):
    path = source(rules, "rules.json")
    assert refused(source(KINDS), "--program", "enter", "--map", path).endswith(why)


@pytest.mark.linux
def test_check_with_the_kernel_looks_into_every_program(bpfnic, source, samples):
    """A clock in a program that is only called."""
    text = PROGRAMS.replace("return XDP_DROP;", "return bpf_ktime_get_ns() & 1;")
    arguments = ["--pcap", samples / "mixed.pcapng", "--backend", "linux", "--check"]
    status, _, err = bpfnic("run", source(text), "--program", "enter", *arguments)
    assert status == 2 and "--check: linux doesn't record what bpf_ktime_get_ns returns (instruction 0" in err

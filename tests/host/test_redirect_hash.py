"""DEVMAP_HASH, from C to where a packet leaves: on the reference, on hardware that has it, and in the running kernel,
whose words are the expectation wherever it can be asked."""

import json
import random
from errno import E2BIG, EEXIST, EINVAL, ENOENT, EOPNOTSUPP, EPERM

import pytest

import bpfnic
from bpfnic.host import pcap
from bpfnic.host.device import Arrival
from bpfnic.host.run import Job, run
from bpfnic.spec.causes import Cause

PROGRAM = """
struct { __uint(type, BPF_MAP_TYPE_DEVMAP_HASH); __uint(max_entries, 4); __type(key, __u32); __type(value, __u32); }
	tenants SEC(".maps");
__u64 flags, high;

// By the first four bytes of a frame.
SEC("xdp") int by_tenant(struct xdp_md *ctx)
{
	__u32 *frame = (void *)(long)ctx->data;

	if ((void *)(frame + 1) > (void *)(long)ctx->data_end)
		return XDP_DROP;
	return bpf_redirect_map(&tenants, *frame | high << 32, flags);
}
SEC("xdp") int looks(struct xdp_md *ctx)
{
	__u32 key = 1;

	return bpf_map_lookup_elem(&tenants, &key) ? XDP_PASS : XDP_DROP;
}
"""
ABORTED, DROP, PASS, TX, REDIRECT = range(5)
pytestmark = pytest.mark.timeout(900)  # the first one compiles the NIC


def key(number: int) -> bytes:
    return number.to_bytes(4, "little")


def frame(tenant: int) -> bytes:
    return key(tenant) + bytes(60)


@pytest.fixture
def obj(source):
    return bpfnic.open(source(PROGRAM))


@pytest.mark.parametrize(
    ("tenant", "flags", "high", "verdict", "egress"),
    [
        (1, 0, 0, REDIRECT, "port0"),
        (0xFFFFFFFF, 0, 0, REDIRECT, "port1"),
        (0xFFFFFFFF, DROP, 7, REDIRECT, "port1"),
        (0, ABORTED, 0, ABORTED, None),
        (2, DROP, 0, DROP, None),
        (2, PASS, 0, PASS, "host"),
        (0xFFFFFFFE, TX, 0, TX, "port0"),
        (1, 1 << 2, 0, ABORTED, None),
        (1, 1 << 63, 0, ABORTED, None),
        (1, 1 << 4 | PASS, 0, REDIRECT, "port0"),
        (2, 1 << 4 | PASS, 0, PASS, "host"),
    ],
)
def test_a_tenants_port(card, obj, tenant, flags, high, verdict, egress):
    obj.set_global("flags", flags)
    obj.set_global("high", high)
    program = card.load(obj, "by_tenant")
    card.maps["tenants"][1] = "port0"
    card.maps["tenants"][0xFFFFFFFF] = 2
    result = program.test_run(frame(tenant))
    assert (result.retval, result.egress) == (verdict, egress)


def test_errors_are_the_kernels(card, obj, says):
    """The same for each device; linux says what they are."""
    card.load(obj, "by_tenant")
    tenants = card.maps["tenants"].device_map
    port0, port1, no_port = key(1), key(2), key(77)

    assert says(tenants.lookup, key(1)) == ENOENT
    assert says(tenants.delete, key(1)) == ENOENT
    assert says(tenants.next_key, None) == ENOENT == says(tenants.next_key, key(1))
    assert says(tenants.update, key(1), [port0], 3) == EINVAL
    assert says(tenants.update, key(1), [bytes(4)]) == EINVAL
    assert says(tenants.update, key(1), [no_port]) == EINVAL
    assert says(tenants.update, key(1), [port0], 2) is None  # EXIST isn't asked for
    assert says(tenants.update, key(1), [port1], 1) == EEXIST
    assert says(tenants.update, key(1), [no_port], 1) == EEXIST
    assert says(tenants.update, key(1), [bytes(4)], 1) == EINVAL
    assert says(tenants.lookup, key(1)) == [port0]
    assert says(tenants.next_key, None) == key(1) == says(tenants.next_key, key(5))
    assert says(tenants.next_key, key(1)) == ENOENT
    for number in (1 << 31, 3, 4):
        assert says(tenants.update, key(number), [port1], 1) is None
    assert says(tenants.update, key(5), [port1]) == E2BIG
    assert says(tenants.update, key(5), [no_port]) == EINVAL
    assert says(tenants.update, key(3), [port0]) is None
    assert says(tenants.pop, key(3)) == EOPNOTSUPP
    assert sorted(tenants.keys()) == sorted(map(key, (1, 1 << 31, 3, 4)))
    assert tenants.dump() == {
        key(1): [b"port0"], key(1 << 31): [b"port1"], key(3): [b"port0"], key(4): [b"port1"],
    }  # fmt: skip
    assert says(tenants.delete, key(4)) is None
    assert says(tenants.delete, key(4)) == ENOENT
    assert says(tenants.update, key(5), [port1]) is None
    tenants.freeze()
    assert says(tenants.update, key(5), [port0]) == EPERM == says(tenants.delete, key(5))
    assert says(tenants.lookup, key(5)) == [port1]


@pytest.mark.linux
@pytest.mark.parametrize("value_size", [4, 8])
def test_random_operations(source, says, value_size):
    """The golden NIC does what the running kernel does, host's operations and packets alike."""
    text = PROGRAM.replace("__type(value, __u32)", f"__uint(value_size, {value_size})")
    obj = bpfnic.open(source(text))
    obj.set_global("flags", PASS)
    chance = random.Random(value_size)
    keys = [0, 1, 2, 1 << 16, 1 << 31, 0xFFFFFFFF, 77]
    seen = set()
    with bpfnic.Nic("golden") as golden, bpfnic.Nic("linux") as linux:
        cards = [golden, linux]
        programs = [card.load(obj, "by_tenant") for card in cards]
        tables = [card.maps["tenants"].device_map for card in cards]
        for step in range(600):
            one = key(chance.choice(keys))
            value = chance.choice([0, 1, 2, 1, 2, 77]).to_bytes(value_size, "little")
            flags = chance.choice([0, 0, 1, 2, 3])
            match chance.randrange(5):
                case 0 | 1:
                    done = [says(table.update, one, [value], flags) for table in tables]
                case 2:
                    done = [says(table.delete, one) for table in tables]
                case 3:
                    done = [says(table.lookup, one) for table in tables]
                case 4:
                    ran = [program.test_run(one + bytes(60)) for program in programs]
                    done = [(result.retval, result.egress) for result in ran]
            assert done[0] == done[1], f"step {step}"
            seen.add(str(done[0]))
            assert tables[0].dump() == tables[1].dump()
        assert {"None", str(EINVAL), str(EEXIST), str(E2BIG), str(ENOENT)} <= seen
        assert {str((REDIRECT, "port0")), str((REDIRECT, "port1")), str((PASS, "host"))} <= seen


def test_an_entry_stays_with_its_port(card, obj):
    program = card.load(obj, "by_tenant")
    card.maps["tenants"][9] = "port1"
    card.device.set_ifindex(1, 77)
    assert card.maps["tenants"][9] == 77
    assert program.test_run(frame(9)).egress == "port1"


@pytest.mark.parametrize("backend", ["golden", "rtl"])
def test_programs_only_redirect(obj, backend):
    """Any other helper ends the packet (Linux lets programs look into such a map, and no more), and is refused
    before."""
    says = r"program looks: map_lookup_elem at instruction \d+ \(.*:\d+\) can't read entries of a DEVMAP_HASH on this"
    with bpfnic.Nic(backend) as card:
        with pytest.raises(bpfnic.BpfnicError, match=says):
            card.load(obj, "looks")
        card.load(obj, "looks", unsafe=True).attach()
        card.maps["tenants"][1] = "port0"
        (packet,) = card.run([Arrival(0, bytes(64))]).packets
        assert packet.cause is Cause.MAP


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("__type(value, __u32)", "__uint(value_size, 12)", "a value has 4 or 8 bytes, not 12"),
        ("__type(key, __u32)", "__type(key, __u64)", "a key has 4 bytes, not 8"),
        ("max_entries, 4", "max_entries, 0", "max_entries is 0"),
        ("max_entries, 4)", "max_entries, 4); __uint(map_flags, BPF_F_NO_PREALLOC)",
         "flag NO_PREALLOC is not for this map type"),
    ],
)  # fmt: skip
def test_sizes(source, old, new, why):
    with bpfnic.Nic("golden") as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(PROGRAM.replace(old, new, 1))), "by_tenant")
    assert str(caught.value) == f"map tenants (DEVMAP_HASH): {why}"


def test_programs_of_entries_are_refused(card, source):
    text = PROGRAM.replace("__type(value, __u32)", "__uint(value_size, 8)")
    program = card.load(bpfnic.open(source(text)), "by_tenant")
    tenants = card.maps["tenants"]
    tenants[1] = "02 00 00 00 ff ff ff ff"  # -1: none
    assert program.test_run(frame(1)).egress == "port1"
    with pytest.raises(OSError) as caught:
        tenants[2] = "02 00 00 00 07 00 00 00"
    assert caught.value.errno == EINVAL


@pytest.mark.parametrize("backend", ["golden", pytest.param("linux", marks=pytest.mark.linux)])
def test_a_run_with_rules(source, tmp_path, backend):
    """What `bpfnic run --map` and its report make of it."""
    frames = [pcap.Packet(1000 * number, frame(number % 5), 0) for number in range(40)]
    capture, rules = tmp_path / "in.pcapng", tmp_path / "rules.json"
    pcap.write(capture, pcap.Capture([pcap.Interface("port0")], frames))
    rules.write_text(json.dumps({"tenants": {"1": "port1", "2": "port0", "3": 2}}))
    report = run(Job(program=source(PROGRAM), capture=capture, rules=(rules,), name="by_tenant", backend=backend))
    assert report["packets"]["verdicts"] == {"XDP_REDIRECT": 24, "XDP_ABORTED": 16}
    assert report["maps"]["tenants"] == {
        "type": "DEVMAP_HASH", "max_entries": 4,
        "entries": [{"key": 1, "value": "port1"}, {"key": 2, "value": "port0"}, {"key": 3, "value": "port1"}],
    }  # fmt: skip

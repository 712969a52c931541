"""What the kernel keeps in map values for itself: refused by name, with the map and the member."""

import pytest

import bpfnic

PROGRAM = """
#define __kptr __attribute__((btf_type_tag("kptr")))
#define __uptr __attribute__((btf_type_tag("uptr")))
#define __percpu_kptr __attribute__((btf_type_tag("percpu_kptr")))
#define __untrusted __attribute__((btf_type_tag("kptr_untrusted")))
#define __nobody __attribute__((btf_type_tag("nobody")))
struct task;
typedef struct bpf_timer alarm;
struct value { __u32 count; VALUE };
struct { __uint(type, KIND); __uint(max_entries, 4); __type(key, __u32); __type(value, struct value); }
	sessions SEC(".maps");
SEC("xdp") int x(struct xdp_md *ctx)
{
	__u32 key = 0;

	return bpf_map_lookup_elem(&sessions, &key) ? XDP_PASS : XDP_DROP;
}
"""
BACKENDS = ["golden", pytest.param("linux", marks=pytest.mark.linux)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("struct bpf_timer expiry;", "expiry is a struct bpf_timer; bpfnic has no timers"),
        ("struct { alarm at[2]; } inner;", "inner.at is a struct bpf_timer; bpfnic has no timers"),
        ("struct { struct bpf_wq work; };", "work is a struct bpf_wq; bpfnic has no work queues"),
        ("struct bpf_dynptr record;", "record is a struct bpf_dynptr; bpfnic has no dynptrs"),
        ("struct bpf_list_head waiting;", "waiting is a struct bpf_list_head; bpfnic has no lists of objects"),
        ("struct bpf_rb_root sorted;", "sorted is a struct bpf_rb_root; bpfnic has no trees of objects"),
        ("struct task __kptr *owner;", "owner is a pointer marked kptr; bpfnic has no pointers to kernel objects"),
        ("struct { struct task __kptr *each[3]; } of;",
         "of.each is a pointer marked kptr; bpfnic has no pointers to kernel objects"),
        ("struct task __percpu_kptr *own;",
         "own is a pointer marked percpu_kptr; bpfnic has no pointers to kernel objects"),
        ("struct task __untrusted *some;",
         "some is a pointer marked kptr_untrusted; bpfnic has no pointers to kernel objects"),
        ("struct task __uptr *theirs;", "theirs is a pointer marked uptr; bpfnic has no pointers to user memory"),
    ],
)  # fmt: skip
def test_refused_by_name(source, backend, value, why):
    text = PROGRAM.replace("VALUE", value).replace("KIND", "BPF_MAP_TYPE_HASH")
    with bpfnic.Nic(backend) as card:
        with pytest.raises(bpfnic.BpfnicError) as caught:
            card.load(bpfnic.open(source(text)), "x")
        assert str(caught.value) == f"map sessions (HASH): a value's member {why}"
        assert not card.maps and not card.programs


def test_plain_pointers_and_other_tags_are_numbers(source):
    value = "struct task *address; struct task __nobody *other; void *more; int (*call)(void);"
    with bpfnic.Nic("golden") as card:
        card.load(bpfnic.open(source(PROGRAM.replace("VALUE", value).replace("KIND", "BPF_MAP_TYPE_ARRAY"))), "x")
        assert card.maps["sessions"][0]["address"] == 0


def test_a_value_that_is_one(source):
    text = PROGRAM.replace("VALUE", "").replace("KIND", "BPF_MAP_TYPE_HASH").replace("struct value);", "alarm);")
    with bpfnic.Nic("golden") as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(text)), "x")
    assert str(caught.value) == "map sessions (HASH): a value is a struct bpf_timer; bpfnic has no timers"


def test_a_variable_that_is_one(source):
    text = """
struct bpf_list_head waiting;
struct { struct bpf_rb_root root; } kept[2];
SEC("xdp") int x(struct xdp_md *ctx) { return *(volatile char *)&waiting ? 2 : 1; }
SEC("xdp") int y(struct xdp_md *ctx) { return *(volatile char *)&kept ? 2 : 1; }
"""
    with bpfnic.Nic("golden") as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(text)), "x")
    assert str(caught.value) in {
        "map .bss (ARRAY): its variable waiting is a struct bpf_list_head; bpfnic has no lists of objects",
        "map .bss (ARRAY): its variable kept.root is a struct bpf_rb_root; bpfnic has no trees of objects",
    }


def test_the_values_of_an_inner_map(source):
    text = """
struct value { struct bpf_timer expiry; };
struct inner { __uint(type, BPF_MAP_TYPE_HASH); __uint(max_entries, 4); __type(key, __u32);
	__type(value, struct value); };
struct { __uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS); __uint(max_entries, 4); __type(key, __u32);
	__array(values, struct inner); } outer SEC(".maps");
SEC("xdp") int x(struct xdp_md *ctx) { __u32 key = 0; return bpf_map_lookup_elem(&outer, &key) ? 2 : 1; }
"""
    with bpfnic.Nic("golden") as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(text)), "x")
    why = "a value's member expiry is a struct bpf_timer; bpfnic has no timers"
    assert str(caught.value) == f"map outer.inner (HASH): {why}"


@pytest.mark.parametrize(
    ("extra", "why"),
    [("map_extra, 3", "map 'sessions' has map_extra 3, which no type of map here takes"),
     ("pinning, 7", "map 'sessions' has unknown pinning 7")],
)  # fmt: skip
def test_what_a_map_may_not_say(source, extra, why):
    text = PROGRAM.replace("VALUE", "__u32 more;").replace("KIND", f"BPF_MAP_TYPE_HASH); __uint({extra}")
    with pytest.raises(bpfnic.BpfnicError) as caught:
        bpfnic.open(source(text))
    assert why in str(caught.value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("kind", "value", "why"),
    [
        ("LRU_HASH", "struct bpf_spin_lock lock;",
         "(LRU_HASH): its values have a spin lock, which ARRAY and HASH maps may have alone"),
        ("PERCPU_ARRAY", "struct bpf_spin_lock lock;",
         "(PERCPU_ARRAY): its values have a spin lock, which ARRAY and HASH maps may have alone"),
        ("HASH", "struct bpf_spin_lock one; struct { struct bpf_spin_lock other; } more;",
         "(HASH): its values have two spin locks, one and more.other"),
        ("ARRAY", "char odd; struct bpf_spin_lock lock __attribute__((packed)); char end;",
         "(ARRAY): the spin lock lock of its values lies at bit 40"),
    ],
)  # fmt: skip
def test_spin_locks(source, backend, kind, value, why):
    """What may not be; what may is in tests/sim/test_spin_locks.py."""
    text = PROGRAM.replace("VALUE", value).replace("KIND", f"BPF_MAP_TYPE_{kind}")
    if "odd" in value:
        text = text.replace("struct value { __u32 count;", "struct __attribute__((packed)) value { __u32 count;")
    with bpfnic.Nic(backend) as card, pytest.raises(bpfnic.BpfnicError) as caught:
        card.load(bpfnic.open(source(text)), "x")
    assert str(caught.value) == f"map sessions {why}"

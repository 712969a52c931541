"""Helpers in firmware, golden beside the running kernel: the same arguments, packets and maps give the same result,
packet and maps."""

import random
from errno import E2BIG, EFAULT, EINVAL, ERANGE

import pytest

from tests.sim.library import Library

pytestmark = pytest.mark.linux


def both(build, call, declarations=""):
    return [Library(build, backend, call, declarations) for backend in ("golden", "linux")]


def same(cards, questions, maps=()):
    """Asks both cards each question; the results that were given. `maps`: what else is compared."""
    results = set()
    with cards[0] as ours, cards[1] as theirs:
        for arguments, more in questions:
            got, wanted = ours.ask(*arguments, **more), theirs.ask(*arguments, **more)
            assert got == wanted, (arguments, more)
            for name in maps:
                assert ours.nic.maps[name].device_map.dump() == theirs.nic.maps[name].device_map.dump()
            results.add(got.result)
    return results


@pytest.mark.parametrize("call", ["bpf_xdp_load_bytes(ctx, a, answer->room + (c & 7), (b & 63) + 1)",
                                  "bpf_xdp_store_bytes(ctx, a, question->text + (c & 7), (b & 63) + 1)"])  # fmt: skip
def test_bytes_of_a_packet(build, call):
    chance = random.Random(1)
    questions = []
    for _ in range(150):
        frame = chance.randbytes(chance.choice((14, 20, 64, 65, 200)))
        size = chance.randrange(64)
        offset = chance.choice((0, 1, chance.randrange(250), len(frame) - size - 1, len(frame) - size, len(frame),
                                0xFFFF, 0x10000, 0xFFFFFFFF, 1 << 32))  # fmt: skip
        questions.append(((offset, size, chance.randrange(8)), {"frame": frame, "text": chance.randbytes(96)}))
    assert same(both(build, call), questions) == {0, -EINVAL, -EFAULT}


NUMBERS = [
    *[b"0", b"7", b"-7", b"--7", b"- 7", b"+7", b"  42", b"\t\n\v\f\r 42", b"\xa0\x0042", b"\xa042", b"", b" ", b"-"],
    *[b"0x", b"0x1f", b"0X1F", b"0xg", b"0x 1", b"08", b"017", b"0o17", b"-0", b"-0x10", b"zz", b"12z", b"1f"],
    *[b"9" * 19, b"9" * 20, b"9" * 40, b"18446744073709551615", b"18446744073709551616", b"-18446744073709551615"],
    *[b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"-9223372036854775809"],
    *[b"0" * 62 + b"17", b"0" * 63 + b"17", b"-" + b"0" * 62 + b"17", b" " * 10 + b"0" * 62 + b"17"],
    *[b"1777777777777777777777", b"2000000000000000000000", b"ffffffffffffffff", b"0xffffffffffffffff"],
    *[b"0x10000000000000000", b"0x" + b"0" * 60 + b"1f", b"0x" + b"0" * 61 + b"1f"],
]


@pytest.mark.parametrize("name", ["strtol", "strtoul"])
def test_numbers_in_text(build, name):
    chance = random.Random(name)
    type = "long" if name == "strtol" else "unsigned long"
    call = f"bpf_{name}(question->text, (a & 127) < 96 ? (a & 127) + 1 : 96, b, ({type} *)answer->room)"
    questions = []
    for text in NUMBERS:
        for size in {len(text), len(text) + 3, 1}:
            for flags in (0, 8, 10, 16):
                questions.append(((max(size, 1) - 1, flags), {"text": text}))
    for _ in range(300):
        text = bytes(chance.choices(b"0123456789abcdefABCDEFxX- \t\0", k=chance.randrange(30)))
        flags = chance.choice((0, 8, 10, 16, 2, 31, 32, 1 << 32, chance.getrandbits(64)))
        questions.append(((chance.randrange(40), flags), {"text": text}))
    assert {-EINVAL, -ERANGE, 1, 20} <= same(both(build, call), questions)


def test_strncmp(build):
    chance = random.Random(3)
    rights = ["", "a", "abcdef", "\\xff\\x80"]
    declarations = "".join(f'const char right{n}[] SEC(".rodata") = "{text}";\n' for n, text in enumerate(rights))
    call = "0"
    for n in range(len(rights)):
        call = f"c == {n} ? bpf_strncmp(question->text, (a & 15) + 1, right{n}) : {call}"
    texts = [b"", b"a", b"abcdef", b"\xff\x80", b"abc", b"abcdeg", b"b", b"\x80", b"abcdefg", b"\x7f"]
    questions = [((chance.randrange(16), 0, n), {"text": text}) for text in texts for n in range(4) for _ in "abc"]
    assert same(both(build, call, declarations), questions) == {0, -1, 1}


LOOP = """
struct seen { __u64 count, sum, stop; };
static long add(__u64 index, void *context)
{
	struct seen *seen = context;
	seen->count++;
	seen->sum += index;
	return index == seen->stop;
}
static long inner(__u64 index, void *context)
{
	struct seen *seen = context;
	bpf_loop(3, add, context, 0);
	return index == seen->stop;
}
static __noinline long run(struct answer *answer, __u64 a, __u64 b, __u64 c)
{
	struct seen seen = { .stop = c & 0xffffffff };
	long result = FUNCTION;
	__builtin_memcpy(answer->room, &seen, sizeof(seen));
	return result;
}
"""


@pytest.mark.parametrize("function", ["bpf_loop(a, add, &seen, b)", "bpf_loop(a, inner, &seen, b)"])
def test_loop(build, function):
    """A callback may loop itself, with another callback."""
    cards = both(build, "answer ? run(answer, a, b, c) : 0", LOOP.replace("FUNCTION", function))
    counts, several = (0, 1, 2, 10, 1 << 32, (1 << 32) + 2), (0, 1, 1 << 40)
    questions = [((count, flags, stop), {}) for count in counts for flags in several for stop in (0, 1, 5, 99)]
    questions += [((count, 0, 0), {}) for count in ((1 << 23) + 1, 0xFFFFFFFF, 1 << 23)]
    assert same(cards, questions) == {0, 1, 2, 6, 10, -EINVAL, -E2BIG}


EACH = """
struct { __uint(type, BPF_MAP_TYPE_KIND); __uint(max_entries, 24); __type(key, __u32); __type(value, VALUE); }
	table SEC(".maps");
struct seen { __u64 count, keys, values, stop; };
static long visit(void *map, __u32 *key, VALUE *value, void *context)
{
	struct seen *seen = context;
	seen->count++;
	seen->keys = seen->keys * 31 + *key;
	seen->values = seen->values * 31 + *value;
	*value += 1;
	return seen->count == seen->stop;
}
static __noinline long run(struct answer *answer, __u64 a, __u64 b)
{
	struct seen seen = { .stop = a };
	long result = bpf_for_each_map_elem(&table, visit, &seen, b);
	__builtin_memcpy(answer->room, &seen, sizeof(seen));
	return result;
}
"""


@pytest.mark.parametrize("value", ["__u64", "__u16"])
@pytest.mark.parametrize("kind", ["ARRAY", "PERCPU_ARRAY"])
def test_each_entry_of_an_array(build, kind, value):
    declarations = EACH.replace("KIND", kind).replace("VALUE", value)
    cards = both(build, "answer ? run(answer, a, b) : 0", declarations)
    for card in cards:
        for key in range(24):
            value_bytes = (1000 * key).to_bytes(8 if value == "__u64" else 2, "little")
            card.nic.maps["table"].device_map.update(key.to_bytes(4, "little"), [value_bytes])
    questions = [((stop, flags), {}) for stop in (0, 1, 7, 24, 25) for flags in (0, 1, 1 << 33)]
    assert same(cards, questions, ["table"]) == {1, 7, 24, -EINVAL}


EACH_KEY = """
struct key { __u64 first; __u32 words[MORE]; };
struct { __uint(type, BPF_MAP_TYPE_KIND); __uint(max_entries, 800); __type(key, struct key); __type(value, __u64); }
	table SEC(".maps");
struct seen { __u64 count, keys, values, wrong, do_what, stop; };
static long visit(void *map, struct key *key, __u64 *value, void *context)
{
	struct seen *seen = context;
	struct key mine = *key;
	__u64 *found = bpf_map_lookup_elem(map, key), changed = *value * 3;

	seen->count++;
	seen->keys += key->first * (key->words[MORE - 1] + 1);
	seen->values += *value;
	seen->wrong += found != value && seen->do_what != 5;
	if (seen->do_what == 1 || (seen->do_what == 2 && key->first % 3))
		seen->wrong += bpf_map_delete_elem(map, key) != 0;
	else if (seen->do_what == 3)
		seen->wrong += bpf_map_update_elem(map, &mine, &changed, BPF_EXIST) != 0;
	else if (seen->do_what == 4)
		*value += 1;
	return seen->count == seen->stop;
}
static long twice(void *map, struct key *key, __u64 *value, void *context)
{
	struct key before = *key;
	long result = bpf_for_each_map_elem(map, visit, context, 0);
	struct seen *seen = context;

	seen->wrong += key->first != before.first || key->words[MORE - 1] != before.words[MORE - 1];
	seen->count += 1000 * result;
	return 0;
}
static __noinline long run(struct answer *answer, __u64 a, __u64 b, __u64 c)
{
	struct seen seen = { .stop = a, .do_what = c };
	long result = bpf_for_each_map_elem(&table, CALLBACK, &seen, b);
	__builtin_memcpy(answer->room, &seen, sizeof(seen));
	return result;
}
"""
# Linux evicts from an LRU map that is small before it is full.
HASHES = ["HASH", "PERCPU_HASH", "LRU_HASH", "LRU_PERCPU_HASH"]


def key_of(number: int, more: int) -> bytes:
    return number.to_bytes(8, "little") + (7 * number).to_bytes(4, "little") * more


def walked(build, kind, callback, more):
    """Cards with a table of that kind. The kernel says whether the program may be; that takes our verifier too long."""
    declarations = EACH_KEY.replace("KIND", kind).replace("CALLBACK", callback).replace("MORE", str(more))
    call = "answer ? run(answer, a, b, c) : 0"
    return [Library(build, backend, call, declarations, unsafe=backend == "golden") for backend in ("golden", "linux")]


def fill(card, more, many=29):
    table = card.nic.maps["table"].device_map
    for key in table.dump():
        table.delete(key)
    for number in range(many):
        table.update(key_of(number, more), [(1000 * number).to_bytes(8, "little")])


@pytest.mark.parametrize("callback", ["visit", "twice"])
@pytest.mark.parametrize("more", [2, 14])
@pytest.mark.parametrize("kind", HASHES)
def test_each_key_of_a_hash(build, kind, more, callback):
    """Every key once, whatever the callback does to the one that it is given: nothing, delete it, delete some, put a
    new value, change the value where it is. How many it stops behind; flags; walks in a walk."""
    ours, theirs = walked(build, kind, callback, more)
    with ours, theirs:
        for what in range(5) if callback == "visit" else (0, 4):
            for stop, flags, many in ((0, 0, 29), (0, 0, 0), (5, 0, 29), (0, 1, 3), (1, 1 << 40, 3)):
                answers = []
                for card in (ours, theirs):
                    fill(card, more, many)
                    answers.append((card.ask(stop, flags, what), card.nic.maps["table"].device_map.dump()))
                (got, table), (wanted, their_table) = answers
                assert got.result == wanted.result, (what, stop, flags)
                assert int.from_bytes(got.room[24:32], "little") == 0  # nothing went wrong
                if stop == 0:  # otherwise the order says which
                    assert (got, table) == (wanted, their_table), (what, stop, flags)
                visits = min(stop, many) if stop and callback == "visit" else many
                assert wanted.result == (-EINVAL if flags else visits)


@pytest.mark.parametrize("kind", ["PERCPU_ARRAY", "PERCPU_HASH", "LRU_PERCPU_HASH"])
def test_the_value_of_a_cpu(build, kind):
    """This CPU's, and none for a number that no CPU has."""
    declarations = f"""
struct {{ __uint(type, BPF_MAP_TYPE_{kind}); __uint(max_entries, 4); __type(key, __u32); __type(value, __u64); }}
	table SEC(".maps");
static __noinline long run(__u64 a, __u64 b)
{{
	__u32 key = a;
	__u64 *value = bpf_map_lookup_percpu_elem(&table, &key, b == 1 ? bpf_get_smp_processor_id() : b);
	return value ? ++*value : -1;
}}
"""
    cards = both(build, "run(a, b)", declarations)
    for card in cards:
        card.nic.maps["table"].device_map.update(bytes(4), [(41).to_bytes(8, "little")])
    questions = [((key, cpu), {}) for key in (0, 0, 3, 4, 99) for cpu in (1, 100000, 0xFFFFFFFF)]
    found = {42, 43, -1} | ({1} if kind == "PERCPU_ARRAY" else set())
    assert same(cards, questions) == found


def test_what_both_have_of_the_rest(build):
    frames = [((), {"frame": bytes(n)}) for n in (14, 60, 1500)]
    assert same(both(build, "bpf_xdp_get_buff_len(ctx)"), frames) == {14, 60, 1500}
    assert same(both(build, "bpf_get_numa_node_id()"), [((), {})]) == {0}

"""Programs in C that take so many frames and so many bytes of stack, by themselves and above their tail calls."""

LEAST = 16
"""Bytes of a function that calls another."""

_MAP = """
struct { __uint(type, BPF_MAP_TYPE_PROG_ARRAY); __uint(max_entries, 8); __type(key, __u32);
         __array(values, int(struct xdp_md *)); } NAME SEC(".maps")"""
MISSED = 77
"""What `caller` returns where its tail call finds nothing."""


def array(name="jumps", **programs):
    """A PROG_ARRAY, with programs by "at" and their index."""
    values = ", ".join(f"[{place.removeprefix('at')}] = (void *)&{held}" for place, held in programs.items())
    declared = "".join(f"int {held}(struct xdp_md *ctx);\n" for held in programs.values())
    return declared + _MAP.replace("NAME", name) + (f" = {{ .values = {{ {values} }} }}" if values else "") + ";\n"


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
        end = f'{body} int left = {result}; asm volatile("" : "+r"(left)); return left;'
        inner = end if level == frames - 1 else f"return 10 * {name}_{level + 1}(ctx) + {frames - level};"
        functions.append(f"{head}struct xdp_md *ctx) {{ {use} {inner} }}\n")
    return "".join(functions)


def returned(frames, result):
    """What `nested` returns where the last function returns `result`."""
    for level in range(2, frames + 1):
        result = 10 * result + level
    return result


def caller(name, above, stack, index=0, jumps="jumps"):
    """A program whose last function, `above` others with `stack` bytes over it, makes a tail call."""
    return nested(name, above + 1, stack, f"bpf_tail_call(ctx, &{jumps}, {index});", MISSED, last=0)


def chain(*aboves, last):
    """Programs p0, p1, …, each of which tail-calls the next with so many frames over it; the last needs `last`."""
    programs = {f"at{number + 1}": f"p{number + 1}" for number in range(len(aboves))}
    parts = [caller(f"p{number}", above, LEAST * above, number + 1) for number, above in enumerate(aboves)]
    return array(**programs), *parts, nested(f"p{len(aboves)}", last, LEAST * last)


def tangle(chance):
    """A few programs, from a random.Random, which tail-call each other by what two maps hold: their text and names.
    Each makes one tail call at most, and makes it whenever it runs, so that there is one chain behind each of them."""
    names = [f"p{number}" for number in range(chance.randrange(2, 6))]
    maps = ("jumps", "more")
    held = {name: {f"at{index}": chance.choice(names) for index in range(8) if chance.random() < 0.6} for name in maps}
    programs = []
    for name in names:
        above = chance.choice((0, 0, 0, 1, 1, 2, 3))
        if chance.random() < 0.3:
            frames = chance.randrange(1, 8)
            programs.append(nested(name, frames, LEAST * chance.randrange(frames, 32)))
        else:
            stack = LEAST * (chance.randrange(above, 10) if above else chance.randrange(32))
            programs.append(caller(name, above, stack, chance.randrange(8), chance.choice(maps)))
    return "".join([*(array(name, **programs) for name, programs in held.items()), *programs]), names

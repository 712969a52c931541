"""Programs built to explode: each must get a verdict, or be called too complex, within a minute."""

from collections.abc import Mapping

BRANCHES = "r6 = r1\nr0 = 0\n" + "".join(
    f"r2 = *(u32 *)(r6 + 16)\nif r2 > {n} goto +1\nr0 += {1 << n}\n" for n in range(20)
) + "r1 = map_val(map_by_fd(0)) + 0 ll\nr0 >>= 20\nr1 += r0\nr0 = *(u8 *)(r1 + 0)\nexit"  # fmt: skip
"""A million sums, each of which is needed exactly: they decide where the value is read."""


def waiting(count: int) -> str:
    """So many paths that wait at once."""
    return "r0 = *(u32 *)(r1 + 16)\n" + "if r0 == 0 goto out\nr0 ^= 1\n" * count + "out:\nr0 = 1\nexit"


def nested(depth: int, passes: int) -> str:
    """Loops within loops."""
    begin = "".join(f"r{6 + n % 4} = 0\ntop{n}:\n" for n in range(depth))
    end = "".join(f"r{6 + n % 4} += 1\nif r{6 + n % 4} < {passes} goto top{n}\n" for n in reversed(range(depth)))
    return "r0 = 0\n" + begin + "r0 += 1\n" + end + "r0 = 1\nexit"


PROGRAMS: Mapping[str, str] = {
    "a million branches": BRANCHES,
    "8,191 waiting paths": waiting(8191),
    "9,000 waiting paths": waiting(9000),
    "4 loops of 1,000": nested(4, 1000),
    "a loop of 2^31": "r0 = 0\ntop:\nr0 += 1\nif w0 < 0x7fffffff goto top\nr0 = 1\nexit",
    "a loop without end": "r0 = 0\ntop:\nif r0 == 1 goto out\ngoto top\nout:\nr0 = 1\nexit",
}

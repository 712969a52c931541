"""Random programs that keep numbers on the stack: most bytes are zeros, on some paths something else lies there, and
now and then what is read is an index, which only some of them may be. Functions and callbacks get pointers to them."""

from bpfnic.spec.programs import ProgramType
from tests.host.verifier.subjects import subject

_BYTES = 32
_SIZES = ((1, "u8"), (2, "u16"), (4, "u32"), (8, "u64"))
BEGIN = ("r6 = r1\n*(u32 *)(r10 - 4) = 0\nr2 = r10\nr2 += -4\nr1 = map_by_fd(0) ll\ncall 1\nif r0 == 0 goto out\n"
         "r9 = r0\nr8 = *(u64 *)(r9 + 0)\nr7 = r8\nr7 &= 7\n")  # fmt: skip
"""r6: the context, r7: a number up to 7, r8: any number, r9: a value of 16 bytes."""
END = "out:\nr0 = 2\nexit\n"
INDEX = "r3 = r9\nr3 += r1\nr0 = *(u8 *)(r3 + 0)\n"
"""r1 is an index of the value."""


class _Text:
    def __init__(self, chance):
        self.chance, self.labels, self.functions = chance, 0, []

    def label(self):
        self.labels += 1
        return f"l{self.labels}"

    def place(self, least=1):
        size, name = self.chance.choice([one for one in _SIZES if one[0] >= least])
        return -self.chance.randrange(size, _BYTES + 1, size), name

    def steps(self, most, depth=0):
        return "".join(self.step(depth) for _ in range(self.chance.randrange(1, most + 1)))

    def step(self, depth):
        choices = [self.clear] * 4 + [self.use] * 3 + [self.spill, self.somewhere, self.apart, self.apart, self.keyed,
                                                     self.spoiled]  # fmt: skip
        if depth < 2:
            choices += [self.branch] * 4 + [self.loop, self.called, self.called, self.called_back]
        return self.chance.choice(choices)(depth)

    def clear(self, depth):
        at, size = self.place()
        return f"*({size} *)(r10 {at:+}) = 0\n"

    def spill(self, depth):
        at, size = self.place(4)
        return f"*({size} *)(r10 {at:+}) = {self.chance.choice(('r7', 'r7', 'r8'))}\n"

    def spoiled(self, depth):
        at, size = self.place()
        if self.chance.randrange(2):
            return f"*({size} *)(r10 {at:+}) = r8\n"
        return f"r1 = r6\nr2 = 0\nr3 = r10\nr3 += {at}\nr4 = {dict(map(reversed, _SIZES))[size]}\ncall 189\n"

    def somewhere(self, depth):
        at = -self.chance.randrange(8, _BYTES + 1)
        value = self.chance.choice(("0", "0", "r8"))
        return f"r3 = r10\nr3 += {at}\nr3 += r7\n*(u8 *)(r3 + 0) = {value}\n"

    def use(self, depth):
        at, size = self.place()
        if self.chance.randrange(5) == 0:
            at = -self.chance.randrange(8, _BYTES + 1)
            return f"r3 = r10\nr3 += {at}\nr3 += r7\nr1 = *(u8 *)(r3 + 0)\n" + INDEX
        return f"r1 = *({size} *)(r10 {at:+})\n" + INDEX

    def keyed(self, depth):
        at = -self.chance.randrange(4, _BYTES + 1, 4)
        return f"r1 = map_by_fd(0) ll\nr2 = r10\nr2 += {at}\ncall 1\nr0 = *(u8 *)(r0 + 0)\n"

    def apart(self, depth):
        """Branches that do nothing: states are kept there."""
        a, b = self.label(), self.label()
        return (f"call 7\nif r0 == 1 goto {a}\nr1 = 1\nr2 = 2\nr3 = 3\n{a}:\nif r0 == 2 goto {b}\n"
                f"r1 = 1\nr2 = 2\nr3 = 3\nr4 = 4\n{b}:\n")  # fmt: skip

    def branch(self, depth):
        other, end = self.label(), self.label()
        condition = self.chance.choice(("==", "!="))
        return (f"call 7\nif r0 {condition} 1 goto {other}\n{self.steps(2, depth + 1)}goto {end}\n"
                f"{other}:\n{self.steps(2, depth + 1)}{end}:\n{self.apart(depth)}")  # fmt: skip

    def loop(self, depth):
        begin = self.label()
        counter = -40 - 8 * depth
        return (f"*(u64 *)(r10 {counter}) = 0\n{begin}:\n{self.steps(2, 2)}r1 = *(u64 *)(r10 {counter})\nr1 += 1\n"
                f"*(u64 *)(r10 {counter}) = r1\nif r1 < 3 goto {begin}\n")  # fmt: skip

    def inside(self, pointer):
        """What a function does with the bytes that it got a pointer to."""
        store = f"*({self.place()[1]} *)({pointer} + 0) = {self.chance.choice((0, 0, 0, 40))}\n"
        return self.chance.choice((store, "", f"call 7\nif r0 == 3 goto +1\n{store}"))

    def called(self, depth):
        name, at = self.label(), -8 * self.chance.randrange(1, _BYTES // 8 + 1)
        reads = self.chance.randrange(2)
        result = f"r0 = *({self.place()[1]} *)(r6 + 0)\n" if reads else "r0 = 0\n"
        self.functions.append(f"{name}:\nr6 = r1\n{self.inside('r6')}{result}exit\n")
        return f"r1 = r10\nr1 += {at}\ncall {name}\nr1 = r0\n" + INDEX

    def called_back(self, depth):
        name, at = self.label(), -8 * self.chance.randrange(1, _BYTES // 8 + 1)
        use = "r1 = *(u8 *)(r6 + 0)\nr3 = r10\nr3 += -16\nr3 += r1\n*(u8 *)(r3 + 0) = 1\n"
        use *= self.chance.randrange(2)
        self.functions.append(f"{name}:\nr6 = r2\n{self.inside('r6')}{use}r0 = 0\nexit\n")
        return f"r1 = 3\nr2 = code_addr({name}) ll\nr3 = r10\nr3 += {at}\nr4 = 0\ncall 181\n"


def program(chance):
    """A program from a random.Random."""
    text = _Text(chance)
    zeros = "".join(f"*(u64 *)(r10 {at}) = 0\n" for at in range(-_BYTES, 0, 8))
    body = text.steps(7)
    return subject(BEGIN + zeros + body + END + "".join(text.functions), ProgramType.XDP)

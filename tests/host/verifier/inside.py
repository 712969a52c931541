"""Whether what a running program's registers hold is what the verifier said that they may hold."""

from bpfnic.host.verifier.scalar import signed, signed_word
from bpfnic.host.verifier.values import CONTEXT, END, META, NONE, NUMBER, PACKET, STACK, VALUE
from bpfnic.host.verifier.verdict import verify
from bpfnic.host.verifier.width import MASK, WORD_MASK
from bpfnic.sim.golden.interpreter import Code
from bpfnic.spec import addresses
from bpfnic.spec.maps import OF_MAPS


def contains(known, number):
    """By the definition in host/verifier/scalar.py."""
    number &= MASK
    word = number & WORD_MASK
    return (
        number & ~known.mask == known.value
        and known.umin <= number <= known.umax
        and known.smin <= signed(number) <= known.smax
        and known.wumin <= word <= known.wumax
        and known.wsmin <= signed_word(word) <= known.wsmax
    )


def holds(held, value, thread, depth):
    """Whether a register that the verifier knows as `held` may hold `value` in this thread."""
    if held.kind is NONE or (held.nullable and value == 0):
        return True
    buffer = thread.memory.buffer
    if held.kind is NUMBER:
        return contains(held.number, value)
    distance = value - held.off
    if held.kind is CONTEXT:
        return distance in (addresses.CONTEXT, addresses.SKB_CONTEXT)
    if held.kind is PACKET or held.kind is META:
        start = addresses.PACKET + (buffer.data if held.kind is PACKET else buffer.data_meta)
        if held.range > 0 and distance + held.range > addresses.PACKET + (
            buffer.data_end if held.kind is PACKET else buffer.data):  # fmt: skip
            return False
        return contains(held.number, distance - start)
    if held.kind is END:
        return value == addresses.PACKET + buffer.data_end
    if held.kind is STACK:
        if held.frame == depth:
            return contains(held.number, distance - thread.registers[10])
        return addresses.STACK <= value <= addresses.STACK_TOP
    if held.kind is VALUE and held.map.type in OF_MAPS:
        return True  # a map, once it isn't NULL
    if held.kind is VALUE and not held.number.mask:
        inside = distance - held.number.value - addresses.MAP_VALUES
        return 0 <= inside <= len(thread.memory.map_memory) - held.map.value_size
    return True


class Watch:
    """A golden program store whose programs are watched: `programs` are (first slot, subject, instructions)."""

    def __init__(self):
        self._programs = []
        self.checked = 0
        self.outside = []

    def add(self, start, subject, limit=60_000):
        """A verified program that stands at a slot of the store; `limit`: of instructions that are walked."""
        states = {}

        def observe(state):
            registers, depth = tuple(state.frame.regs), len(state.frames) - 1
            kept = states.setdefault((state.slot, depth, bool(state.frames[0].entry)), {})
            kept[tuple(map(id, registers))] = registers

        verdict = verify(subject, observe=observe, limit=limit)
        if verdict.accepted:
            live = subject.graph().live
            self._programs.append((start, len(subject.code), subject, states, live))
        return verdict

    def check(self, thread, pc):
        """Called before each instruction."""
        for start, length, subject, states, live in self._programs:
            if not start <= pc < start + length or thread.frame >= addresses.FRAMES:
                continue
            slot, depth = pc - start, thread.depth
            needed = [register for register in range(10) if live[slot] >> register & 1]
            # A global function was walked as the outermost one, whoever calls it.
            places = [(slot, depth, False), *((slot, above, True) for above in range(depth))]
            candidates = [(place[1], registers) for place in places for registers in states.get(place, {}).values()]
            self.checked += 1
            if not any(all(holds(registers[r], thread.registers[r], thread, frame) for r in needed)
                       for frame, registers in candidates):  # fmt: skip
                values = {register: hex(thread.registers[register]) for register in needed}
                self.outside.append((subject.name, slot, depth, values))

    def install(self, monkeypatch):
        """Watch every golden thread from here on."""
        self.install_with(monkeypatch.setattr)

    def install_with(self, put):
        """The same with what replaces an attribute: (object, name, value)."""
        step = Code.step

        def watched(code, pc):
            found = step(code, pc)
            execute = found.execute

            def checked(thread):
                self.check(thread, pc)
                return execute(thread)

            return found._replace(execute=checked)

        put(Code, "step", watched)

"""The packet path's bench: the compiled hardware, and around it ingresses, egresses and cores that check what they see.

The cores here are the environment: they run "programs" that are Python generators, as many at once as there are
threads, with a local access in every clock. What each access must answer, and what must leave, comes from packet.py.
"""

import random
from collections import deque
from functools import cache

from bpfnic.hdl import interfaces
from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.interfaces import IngressEvent
from bpfnic.spec import addresses
from bpfnic.spec.causes import Cause
from bpfnic.spec.programs import XdpAction
from tests.hdl.packets.packet import (
    ADJUST_HEAD,
    ADJUST_META,
    ADJUST_TAIL,
    CONTEXT,
    LIVE,
    PACKET,
    REDIRECT,
    REDIRECT_MAP,
    SKB,
    SKB_WORDS,
    STACK,
    Packet,
)
from tests.hdl.simulated import Fields


def flow_of(frame: bytes) -> bytes:
    """The two addresses of an untagged IPv4 frame, without regard to direction; nothing for other frames."""
    return b"".join(sorted([frame[26:30], frame[30:34]])) if frame[12:14] == b"\x08\x00" else b""


class Run:
    """A thread that runs a program on a packet."""

    def __init__(self, packet: Packet, program, buffer: int, sequence: int):
        self.packet, self.program, self.buffer, self.sequence = packet, program, buffer, sequence
        self.next = None  # the operation to issue, if the program has been asked for it already


class Core:
    """A core that issues one operation of one of its threads in a clock, and checks every answer."""

    def __init__(self, bench: "Bench", number: int):
        self.bench, self.dut, self.number = bench, bench.dut, number
        self.port = cache(lambda name: name.replace("_", f"__{number}__", 1))  # asked for in every clock
        self.runs: dict[int, Run] = {}
        self.ready: list[int] = []  # threads that may issue
        self.issued: deque = deque([None] * 2)  # the threads that did in the last clocks
        self.loads: deque = deque([None] * 3)  # (value, what it is), in the clocks to come
        self.finish = self.request = None  # payloads on offer
        self.answers: dict[int, int] = {}

    def drive(self) -> None:
        bench, dut = self.bench, self.dut
        dut[self.port("start_ready")] = bench.chance(bench.start_ready)
        dut[self.port("answer_ready")] = bench.chance(0.7)
        dut[self.port("local_enable")] = 0
        self.asked = self.bounds = None
        others = [thread for thread in self.ready if thread not in self.issued]  # interfaces.LocalPort
        chosen = bench.random.choice(others) if others and bench.chance(bench.issue) else None
        self.issued.append(chosen)
        self.issued.popleft()
        if chosen is not None:
            self._issue(chosen)
        dut[self.port("finish_valid")] = self.finish is not None
        dut[self.port("finish_payload")] = self.finish or 0
        dut[self.port("service_valid")] = self.request is not None
        dut[self.port("service_payload")] = self.request or 0

    def _issue(self, thread: int) -> None:
        """Runs a thread's next operation; nothing, if the stream that it needs is taken."""
        bench, run = self.bench, self.runs[thread]
        packet = run.packet
        run.next = run.next or next(run.program)
        operation, *values = run.next
        self.dut[self.port("bounds_thread")] = thread
        self.bounds = [run.buffer, packet.meta, packet.data, packet.data_end]
        if operation in ("load", "store"):
            self._access(thread, run, operation == "store", *values)
        elif operation == "service" and self.request is None:
            service, a, b = values
            self.request = bench.request.pack(thread=thread, service=service, a=a, b=b)
            self.answers[thread] = packet.serve(service, a, b)
            self.ready.remove(thread)
        elif operation == "exit" and self.finish is None:
            verdict, cause = values
            self.finish = bench.finish.pack(thread=thread, verdict=verdict, cause=cause)
            self.ready.remove(thread)
            bench.done[packet.ingress][run.sequence] = packet.leaves(verdict, cause)
        else:
            return
        run.next = None

    def _access(self, thread: int, run: Run, write: bool, region: int, offset: int, size: int, value: int = 0) -> None:
        wanted = {"enable": 1, "write": write, "region": region, "thread": thread, "buffer": run.buffer}
        wanted |= {"offset": offset, "even": (offset + 8) % self.bench.config.buffer_bytes >> 4}
        wanted |= {"size": size, "lanes": (1 << (1 << size)) - 1 << offset % 8}
        if write:
            run.packet.store(region, offset, size, value)
            noise = self.bench.random.getrandbits(64) << (8 << size)  # above the value: ignored
            wanted["write_data"] = (value & (1 << (8 << size)) - 1 | noise) & (1 << 64) - 1
        else:
            self.asked = run.packet.load(region, offset, size), (run.packet.ingress, run.sequence, region, offset, size)
        for name, number in wanted.items():
            self.dut[self.port("local_" + name)] = number

    def check(self) -> None:
        bench, dut = self.bench, self.dut
        self.loads.append(self.asked)
        due = self.loads.popleft()
        if due is not None:
            assert dut[self.port("local_read_data")] == due[0], due
        if self.bounds is not None:
            assert list(bench.bounds.unpack(dut[self.port("bounds_bounds")]).values()) == self.bounds
        if self.finish is not None and dut[self.port("finish_ready")]:
            del self.runs[bench.finish.unpack(self.finish)["thread"]]
            self.finish = None
        if self.request is not None and dut[self.port("service_ready")]:
            self.request = None
        if dut[self.port("answer_valid")] and dut[self.port("answer_ready")]:
            answer = bench.answer.unpack(dut[self.port("answer_payload")])
            assert answer["value"] == self.answers.pop(answer["thread"])
            self.ready.append(answer["thread"])
        if dut[self.port("start_valid")] and dut[self.port("start_ready")]:
            self._start()

    def _start(self) -> None:
        bench, dut = self.bench, self.dut
        start = bench.start.unpack(dut[self.port("start_payload")])
        trace = bench.dispatch.unpack(dut[f"dispatch_trace__{self.number}"])
        thread, ingress, sequence = trace["thread"], trace["ingress"], trace["sequence"]
        assert trace["valid"] and thread == start["thread"] and trace["pc"] == start["pc"] == bench.entries[ingress]
        assert trace["program_type"] == bench.of_tc[ingress]
        assert thread not in self.runs
        dut[self.port("bounds_thread")] = thread
        dut.settle()
        buffer = bench.bounds.unpack(dut[self.port("bounds_bounds")])["buffer"]
        packet = Packet(bench.config, bench.accepted[ingress][sequence], ingress, bench.ifindexes,
                        bench.of_tc[ingress])  # fmt: skip
        flow = flow_of(bench.accepted[ingress][sequence])
        running = [run for core in bench.cores for run in core.runs.values()]
        if bench.apart:
            others = [flow_of(bench.accepted[run.packet.ingress][run.sequence]) for run in running]
            assert flow not in others, "two packets of a flow run at the same time"
        bench.begun.append((ingress, sequence, flow))
        bench.together = max(bench.together, len(running) + 1)
        self.runs[thread] = Run(packet, bench.program(bench, packet), buffer, sequence)
        self.ready.append(thread)


class Bench:
    """A NIC's packet path in its environment.

    send(ingress, frame, ...) queues frames; run() clocks until everything has left (or for some clocks) and checks
    each clock; verify() compares what left with what had to. Knobs are probabilities of a clock: `gap` before a beat,
    `egress_ready`, `start_ready`, `issue` of an operation by a core.
    """

    def __init__(self, config: NicConfig, dut, seed: int = 0):
        self.config, self.dut, self.random = config, dut, random.Random(seed)
        self.beat, self.sent_beat = (
            Fields(interfaces.Beat(user)) for user in (interfaces.INGRESS_USER, interfaces.EGRESS_USER)
        )
        self.bounds, self.finish, self.start = (
            Fields(layout(config)) for layout in (interfaces.Bounds, interfaces.Finish, interfaces.Start)
        )
        self.request, self.answer = Fields(interfaces.ServiceRequest(config)), Fields(interfaces.Answer(config))
        self.dispatch, self.release = Fields(interfaces.DispatchTrace(config)), Fields(interfaces.ReleaseTrace(config))
        self.refuse, self.status = Fields(interfaces.RefuseTrace(config)), Fields(interfaces.InterfaceStatus(config))
        self._control = Fields(interfaces.InterfaceControl(config))
        self._entry = Fields(interfaces.Entry(config))

        self.gap, self.egress_ready, self.start_ready, self.issue = 0.0, 1.0, 1.0, 1.0
        self.program = self.verdict(XdpAction.XDP_PASS)
        every = range(config.interfaces)
        self.ifindexes = [10 + 7 * i for i in every]
        self.entries: list[int | None] = [None] * config.interfaces
        self.of_tc = [False] * config.interfaces
        self.waits = [(True, True)] * config.interfaces  # (ingress, egress)
        self.cores = [Core(self, number) for number in range(config.cores)]
        self.pending = [deque() for _ in every]  # frames to send: (bytes, bad, port)
        self.beats = [deque() for _ in every]  # of the frame that is being sent
        self.ended = [deque() for _ in every]  # frames that ended and are not yet accepted or refused
        self.accepted: list[list[bytes]] = [[] for _ in every]
        self.refused: list[list[tuple]] = [[] for _ in every]  # (bytes, event)
        self.done: list[dict[int, tuple]] = [{} for _ in every]  # sequence -> Packet.leaves
        self.released: list[list[tuple]] = [[] for _ in every]  # (sequence, queued, egress)
        self.sent: list[list[tuple]] = [[] for _ in every]  # per egress: (ingress, action, bytes)
        self.partial = [bytearray() for _ in every]
        self.counts = [dict.fromkeys(IngressEvent, 0) for _ in every]
        self.still: list[tuple | None] = [None] * len(every)  # what said last that nothing happened, and was checked
        self.received_bytes, self.sent_count, self.sent_bytes, self.egress_dropped = ([0] * len(every) for _ in "abcd")
        self.causes = [0] * 16
        self.clock = 0
        self.ends: list[list[int]] = [[] for _ in every]  # clocks in which a frame left an egress
        self.apart, self.begun = False, []  # (ingress, sequence, flow), in the order in which they began
        self.together = 0  # the most programs that ran at once
        self.enable, self.stalled = True, set()  # egresses that take nothing
        self.dut["rst"] = 0
        self.configure()

    # Programs: generators of ("load", region, offset, size), ("store", region, offset, size, value),
    # ("service", service, a, b) and at last ("exit", verdict, cause).

    @staticmethod
    def verdict(value: int, cause: int = 0):
        """A program that ends at once."""

        def program(bench: Bench, packet: Packet):
            yield "exit", value, cause

        return program

    @staticmethod
    def anything(operations: int):
        """Programs that do up to that many things at random, within their windows, and end in any way."""

        def program(bench: Bench, packet: Packet):
            pick = bench.random

            def above():  # the upper half of a register, which an int or u32 argument leaves out
                return pick.choice([0, pick.getrandbits(32) << 32, 0xFFFF_FFFF << 32])

            for _ in range(pick.randrange(operations + 1)):
                kinds = {"stack": 8, "packet": 8, "context": 2, "head": 1, "tail": 1, "meta": 1, "redirect": 1}
                kinds["entry"] = 1
                kinds["skb"] = 6 * packet.of_tc
                kinds["entry"] *= not packet.of_tc  # which have no bpf_redirect_map
                kind = pick.choices([*kinds], [*kinds.values()])[0]
                size = pick.randrange(4)
                value = [pick.getrandbits(64)] if pick.random() < 0.5 else []
                if kind == "stack":
                    yield "store" if value else "load", STACK, pick.randrange(512 >> size) << size, size, *value
                elif kind == "context" and value and not packet.of_tc:
                    yield "store", CONTEXT, 16, 2, pick.choice([0, 1, 63, 64, 1 << 31 | 5]) | above()
                elif kind == "context":
                    yield "load", CONTEXT, pick.randrange(64 >> size) << size, size
                elif kind == "skb":
                    at = pick.randrange(256 >> size) << size
                    if any(at < word + 4 and at + (1 << size) > word for word in LIVE):  # nobody writes those
                        value = []
                    yield "store" if value else "load", SKB, SKB_WORDS + at, size, *value
                elif kind == "packet":
                    # Often at an end, where neighbours would show.
                    last = packet.data_end - (1 << size)
                    at = pick.choice([pick.randint(packet.meta, last), packet.meta, packet.data, last])
                    yield "store" if value else "load", PACKET, at, size, *value
                elif kind == "redirect":
                    target = pick.choice([*bench.ifindexes, *bench.ifindexes, 0, bench.ifindexes[0] | 1 << 31])
                    # A tc program's BPF_F_INGRESS (1) leads to another ingress: tests/sim/test_hooks.py
                    flags = pick.choice([0, 0, 0, 1 + packet.of_tc, 1 << 63])
                    yield "service", REDIRECT, target | above(), flags
                elif kind == "entry":
                    entry = pick.randrange(4) | pick.choice([*range(5), 63, 64, 255]) << 8
                    flags = pick.choice([*range(4), pick.randrange(32), 16, 1 << 63])
                    yield "service", REDIRECT_MAP, entry | above(), flags
                else:
                    delta = pick.choice([pick.randint(-50, 50), pick.randint(-300, 300), pick.randint(-2000, 2000)])
                    service = {"head": ADJUST_HEAD, "tail": ADJUST_TAIL, "meta": ADJUST_META}[kind]
                    if kind == "meta" and pick.random() < 0.7:
                        delta = 4 * pick.randint(-12, 12)
                    yield "service", service, pick.getrandbits(64), (delta & 0xFFFF_FFFF) | above()
                    if delta < 0:  # look at what came into sight
                        yield "load", PACKET, packet.meta, 3
            trap = pick.choice([cause for cause in Cause if Cause.NONE < cause < Cause.VERDICT])
            verdicts = [0, 1, 2, 2, 3, 3, 4, 4, 4, 5, 1 << 31]
            if packet.of_tc:
                verdicts += [7, 7, 7, 8, 9, 15, 16, 23]
            yield "exit", pick.choice(verdicts), pick.choice([0, 0, 0, trap])

        return program

    def configure(self) -> None:
        """Hands entries, ifindexes and modes to the hardware."""
        for number, (entry, waits) in enumerate(zip(self.entries, self.waits, strict=True)):
            self.dut[f"control__{number}"] = self._control.pack(
                ifindex=self.ifindexes[number],
                xdp=self._entry.pack(valid=entry is not None, slot=entry or 0, program_type=self.of_tc[number],
                                     following=0),
                ingress=0, egress=0, ingress_waits=waits[0], egress_waits=waits[1],
            )  # fmt: skip

    def attach(self, program, *ingresses: int) -> None:
        self.program = program
        for ingress in ingresses:
            self.entries[ingress] = 40 + ingress
        self.configure()

    def chance(self, probability: float) -> bool:
        return probability >= 1 or self.random.random() < probability

    def send(self, ingress: int, frame: bytes, bad: bool = False, port: int = 0) -> None:
        self.pending[ingress].append((frame, bad, port))

    def frame(self, length: int) -> bytes:
        return self.random.randbytes(length)

    @property
    def idle(self) -> bool:
        left = any(self.pending) or any(self.beats) or any(self.ended)
        return not left and not any(self.partial) and self.quiet > 40

    def run(self, clocks: int | None = None, most: int = 200_000) -> None:
        self.quiet = 0  # clocks in which nothing was in flight or moved
        for _ in range(clocks or most):
            self._clock()
            if clocks is None and self.idle:
                return
        assert clocks is not None, "packets are stuck"

    def _clock(self) -> None:
        dut = self.dut
        dut["enable"], dut["apart"] = self.enable, self.apart
        for number in range(self.config.interfaces):
            self._offer(number)
            dut[f"egress__{number}__ready"] = number not in self.stalled and self.chance(self.egress_ready)
        for core in self.cores:
            core.drive()
        dut.settle()
        self.taken = []  # ingresses whose beat is taken; an input must not change before the clock's edge
        in_flight = sum([self._count(number) for number in range(self.config.interfaces)])
        self.quiet = 0 if in_flight else self.quiet + 1
        for number in range(self.config.interfaces):
            self._look_at(number)
        self._released()
        for core in self.cores:
            core.check()
        dut.tick()
        self.clock += 1
        for number in self.taken:
            dut[f"ingress__{number}__valid"] = 0

    def _offer(self, number: int) -> None:
        """The next beat of an ingress. Once valid, it stays until it is taken."""
        beats, name = self.beats[number], f"ingress__{number}__"
        if self.dut[name + "valid"]:
            return
        if not beats and self.pending[number]:
            frame, bad, port = self.pending[number][0]
            for start in range(0, len(frame), 8):
                piece, last = frame[start : start + 8], start + 8 >= len(frame)
                noise = self.random.randbytes(8 - len(piece))  # in the lanes that keep leaves out
                beats.append(
                    self.beat.pack(
                        data=int.from_bytes(piece + noise, "little"), keep=(1 << len(piece)) - 1, last=last,
                        user=(bad and last) | port << 1,
                    )  # fmt: skip
                )
        if beats and self.chance(1 - self.gap):
            self.dut[name + "valid"], self.dut[name + "payload"] = 1, beats[0]

    def _look_at(self, number: int) -> None:
        """What moved at one interface."""
        dut = self.dut
        name = f"ingress__{number}__"
        if dut[name + "valid"] and dut[name + "ready"]:
            self.quiet = 0
            self.beats[number].popleft()
            self.taken.append(number)
            if not self.beats[number]:
                self.ended[number].append(self.pending[number].popleft())
        name = f"egress__{number}__"
        self.quiet = 0 if dut[name + "valid"] else self.quiet
        if dut[name + "valid"] and dut[name + "ready"]:
            beat = self.sent_beat.unpack(dut[name + "payload"])
            count = beat["keep"].bit_length()
            assert beat["keep"] == (1 << count) - 1 and (beat["last"] or count == 8)
            assert beat["data"] >> 8 * count == 0
            self.partial[number] += beat["data"].to_bytes(8, "little")[:count]
            if beat["last"]:
                self.sent[number].append((beat["user"] & 7, beat["user"] >> 3, bytes(self.partial[number])))
                self.ends[number].append(self.clock)
                self.partial[number].clear()

    def _count(self, number: int) -> int:
        """Checks the balance at the clock's start, then counts its events; answers what is in flight."""
        words = self.dut[f"status__{number}"], self.dut["refuse_trace"], len(self.accepted[number])
        status, counts = self.status.unpack(words[0]), self.counts[number]
        if words == self.still[number]:
            return status["in_flight"]
        outcomes = sum(counts.values()) - counts[IngressEvent.RECEIVED]
        assert counts[IngressEvent.RECEIVED] == outcomes + status["in_flight"]
        assert status["next_sequence"] - status["oldest_sequence"] == status["in_flight"]
        assert status["next_sequence"] == len(self.accepted[number])
        events = [event for event in IngressEvent if status["events"] >> event & 1]
        for event in events:
            counts[event] += 1
        refuse = self.refuse.unpack(words[1])
        accepted, refused = refuse["accepted"] >> number & 1, refuse["refused"] >> number & 1
        reasons = [event for event in events if IngressEvent.REFUSED_FULL <= event <= IngressEvent.REFUSED_ERROR]
        assert (IngressEvent.RECEIVED in events) == (accepted ^ refused) and len(reasons) == refused
        if accepted or refused:
            frame, bad, port = self.ended[number].popleft()
            self.received_bytes[number] += status["received_bytes"]
            reason = self._reason(number, frame, bad, port)
            if accepted:
                assert reason is None
                self.accepted[number].append(frame)
                if self.entries[number] is None:
                    self._direct(number, frame, port)
            else:
                if reason is None:
                    assert not self.waits[number][0]
                    reason = IngressEvent.REFUSED_FULL
                assert reasons[0] == reason
                self.refused[number].append((frame, reasons[0]))
        self.sent_count[number] += status["sent"]
        self.sent_bytes[number] += status["sent_bytes"] * status["sent"]
        self.egress_dropped[number] += status["egress_dropped"]
        happened = status["events"] or accepted or refused or status["sent"] or status["egress_dropped"]
        self.still[number] = None if happened else words
        return status["in_flight"]

    def _reason(self, number: int, frame: bytes, bad: bool, port: int):
        """Why a frame must be refused, buffers or not."""
        if len(frame) > self.config.buffer_bytes - addresses.HEADROOM:
            return IngressEvent.REFUSED_LONG
        nowhere = number == self.config.ports and port >= self.config.ports
        return IngressEvent.REFUSED_ERROR if bad or len(frame) < addresses.ETH_HLEN or nowhere else None

    def _direct(self, number: int, frame: bytes, port: int) -> None:
        """A frame that no program runs on."""
        of_host = number == self.config.ports
        event, egress = (IngressEvent.TRANSMITTED, port) if of_host else (IngressEvent.PASSED, self.config.ports)
        self.done[number][len(self.accepted[number]) - 1] = (event, egress, frame, 15, 0)

    def _released(self) -> None:
        release = self.release.unpack(self.dut["release_trace"])
        if release["valid"]:
            self.released[release["ingress"]].append((release["sequence"], release["queued"], release["egress"]))
        causes = self.dut["causes"]
        assert causes & causes - 1 == 0
        if causes:
            self.causes[causes.bit_length() - 1] += 1

    def verify(self) -> None:
        """Everything that was accepted has left as it had to: bytes, order, counters."""
        every = range(self.config.interfaces)
        expected = [{ingress: [] for ingress in every} for _ in every]
        causes = [0] * 16
        for ingress in every:
            counts = dict.fromkeys(IngressEvent, 0)
            assert [sequence for sequence, _, _ in self.released[ingress]] == list(range(len(self.accepted[ingress])))
            assert sorted(self.done[ingress]) == list(range(len(self.accepted[ingress])))
            for sequence, queued, to in self.released[ingress]:
                event, egress, content, action, cause = self.done[ingress][sequence]
                counts[event] += 1
                causes[cause] += event == IngressEvent.ABORTED
                if queued:
                    assert to == egress
                    expected[egress][ingress].append((ingress, action, content))
                else:
                    assert egress is None or not self.waits[egress][1]
            for _, event in self.refused[ingress]:
                counts[event] += 1
            counts[IngressEvent.RECEIVED] = len(self.accepted[ingress]) + len(self.refused[ingress])
            assert self.counts[ingress] == counts
            ended = [*self.accepted[ingress], *(frame for frame, _ in self.refused[ingress])]
            assert self.received_bytes[ingress] == sum(map(len, ended))
        assert self.causes == causes
        for egress in every:
            for ingress in every:
                assert [sent for sent in self.sent[egress] if sent[0] == ingress] == expected[egress][ingress]
            assert self.sent_count[egress] == len(self.sent[egress])
            assert self.sent_bytes[egress] == sum(len(content) for _, _, content in self.sent[egress])
        dropped = sum(1 for each in self.released for _, queued, _ in each if not queued)
        gone = sum(1 for each in self.done for result in each.values() if result[1] is None)
        assert sum(self.egress_dropped) == dropped - gone

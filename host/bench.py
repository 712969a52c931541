"""The same program, maps and packets on every device that runs them, and whether the devices agree."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bpfnic.host import attachments, check, ended, listing, lockstep, rules
from bpfnic.host.attachments import Attachment
from bpfnic.host.check import Difference, Evidence
from bpfnic.host.device import Arrival, DeviceOptions, OnStep, Pacing, Traffic, hook_for
from bpfnic.host.network import Network
from bpfnic.host.nic import Nic, interface_name
from bpfnic.host.nicmaps import NicEvents
from bpfnic.host.object import Object, Program
from bpfnic.spec import addresses, helpers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.isa import Operation, find
from bpfnic.spec.maps import MapType
from bpfnic.spec.programs import VERDICTS, Hook, XdpAction

REFERENCE = "golden"
_NOT_COMPUTED = frozenset(
    helpers.BY_NAME[name].number
    for name in (
        *("ktime_get_ns", "ktime_get_boot_ns", "ktime_get_coarse_ns", "ktime_get_tai_ns", "jiffies64"),
        *("get_prandom_u32", "get_smp_processor_id"),
    )
)


@dataclass(frozen=True)
class Bench:
    """A program of an object with its rules (one file's after the other), frames and their pacing, and the device that
    it is about. `ifindexes` by port; a port p that isn't named has p + 1. `network`: what the devices know of it.
    `attachments`: which programs stand where; without any, the program does at every port. `unsafe`: programs need not
    be verified."""

    backend: str
    obj: Object
    arrivals: Sequence[Arrival]
    pacing: Pacing = Pacing()
    options: DeviceOptions = DeviceOptions()
    name: str | None = None
    entries: Sequence[rules.Rules] = ()
    ifindexes: Mapping[int, int] = field(default_factory=dict)
    network: Network | None = None
    unsafe: bool = False
    attachments: Sequence[Attachment] = ()

    @property
    def program(self) -> Program:
        """The one, or the first one, that is attached."""
        if self.attachments:
            return self.attachments[0].obj.program(self.attachments[0].name)
        return self.obj.program(self.name)

    def at(self, port: int) -> dict[Hook, list[str]]:
        """Names of the programs at each hook of a port where there are some."""
        if not self.attachments:
            return {hook_for(self.program.type): [self.program.name]}
        mine = [each for each in self.attachments if each.port == port]
        return {hook: names for hook in Hook if (names := [each.name for each in mine if each.hook is hook])}

    def ifindex(self, interface: int) -> int:
        """What programs know an interface by; 0 for the host."""
        return self.ifindexes.get(interface, interface + 1) if interface < self.options.ports else 0

    def run(self, on_step: OnStep | None = None) -> Evidence:
        """Everything on a fresh device."""
        with self._device(self.backend, self.options) as card:
            return _evidence(card, card.run(self.arrivals, self.pacing, on_step))

    def check(self, actual: Evidence) -> dict[str, Any]:
        """Compare what `run` gave with the reference: `reference`, `equal`, and if that is false `packet` (its number
        or None), `difference` and `trace`, lines that say where it began."""
        if actual.traffic.recording is None:
            # One after the other is one CPU.
            self._refuse_cores(actual)
            options = replace(self.options, cores=1, threads=1, buffer_bytes=actual.capabilities.buffer_bytes)
            with self._device(REFERENCE, options) as card:
                for held in card.programs.values():
                    self._refuse_what_was_not_recorded(held.loaded.program, actual.device)
                expected = _evidence(card, card.run(self.arrivals, self.pacing))
            return self._verdict(check.compare_one_by_one(actual, expected), actual.device, [])
        numbers = self._replayable(actual)
        expected = self._replay(actual.traffic, numbers)
        difference = check.compare(actual, expected, self.arrivals, numbers, self.pacing)
        return self._verdict(difference, actual.device, self._trace() if difference else [])

    def in_lockstep(self, on_step: OnStep | None = None) -> tuple[Evidence | None, dict[str, Any]]:
        """Run everything on a fresh device with the reference at its side, comparing each instruction. What the device
        did (None where it was stopped), and the comparison as from `check`, with `instructions` compared."""
        options = replace(self.options, waves=None)
        with self._device(self.backend, self.options) as card, self._device(REFERENCE, options) as reference:
            name = card.device.name
            ran = lockstep.run(card.device, reference.device, self.arrivals, self.pacing, on_step)
            if ran.difference:
                found, describe = ran.difference, self._describe(card)
                shown = Difference(found.what, *found.sides(describe), found.packet)
                return None, self._verdict(shown, name, found.lines(name, REFERENCE, describe))
            assert ran.actual is not None
            actual = _evidence(card, ran.actual)
            numbers = self._replayable(actual)
            expected = _evidence(reference, ran.follower.end(numbers))
        difference = check.compare(actual, expected, self.arrivals, numbers, self.pacing)
        outside = ["every instruction did the same on both: the difference is outside the program"]
        compared = {"instructions": expected.traffic.instructions}
        return actual, self._verdict(difference, name, outside) | compared

    def _device(self, backend: str, options: DeviceOptions) -> Nic:
        """A fresh device with the programs where they stand."""
        card = Nic(backend, options)
        try:
            for port in range(card.ports):
                card.device.set_ifindex(port, self.ifindex(port))
            if self.network:
                card.network = self.network
            if self.attachments:
                attachments.attach(card, self.attachments, self.unsafe)
            else:
                card.load(self.obj, self.name, unsafe=self.unsafe).attach()
            for entries in self.entries:
                self._load_what_is_named(card, entries)
                if unused := [name for name in entries if name not in card.maps]:
                    names = ", ".join(card.programs)
                    raise BpfnicError(f"program {names} does not use map {unused[0]!r}")
                maps = {name: held.device_map for name, held in card.maps.items()}
                rules.apply(entries, maps, lambda name: card.programs[name].loaded)
        except BaseException:
            card.close()
            raise
        return card

    def _load_what_is_named(self, card: Nic, entries: rules.Rules) -> None:
        """The programs that rules put into a PROG_ARRAY; they may bring maps that the same rules fill."""
        for map_name, values in entries.items():
            if self.obj.maps[map_name].type is MapType.PROG_ARRAY:
                for name in dict.fromkeys(value.decode() for _, (value,), _ in values):
                    if name not in card.programs:
                        card.load(self.obj, name, unsafe=self.unsafe)

    def _replayable(self, actual: Evidence) -> list[int]:
        room = actual.capabilities.buffer_bytes - addresses.HEADROOM
        return check.replayable(self.arrivals, actual.traffic, room)

    def _replay(self, traffic: Traffic, numbers: Sequence[int]) -> Evidence:
        assert traffic.recording
        recording = check.part_of(traffic.recording, numbers)
        with self._device(REFERENCE, replace(self.options, waves=None)) as card:
            offered = [self.arrivals[number] for number in numbers]
            return _evidence(card, card.run(offered, self.pacing, replay=recording))

    def _refuse_what_was_not_recorded(self, program: Program, device: str) -> None:
        for slot, instruction in enumerate(program.instructions):
            if instruction is None or find(instruction).operation is not Operation.CALL_HELPER:
                continue
            if instruction.imm in _NOT_COMPUTED:
                name = helpers.find(instruction.imm).name
                where = f"{listing.instruction(program, slot)} {listing.source(program, slot)}".rstrip()
                raise BpfnicError(f"--check: {device} doesn't record what bpf_{name} returns ({where})")

    def _refuse_cores(self, actual: Evidence) -> None:
        for name, entries in actual.maps.items():
            if actual.capabilities.cores > 1 and any(len(values) > 1 for values in entries.values()):
                raise BpfnicError(f"--check: {actual.device} doesn't record by which of its cores a packet was taken "
                                  f"(map {name} has a value for each)")  # fmt: skip

    def _verdict(self, difference: Difference | None, device: str, trace: Sequence[str]) -> dict[str, Any]:
        result: dict[str, Any] = {"reference": REFERENCE, "equal": difference is None}
        if difference is None:
            return result
        where = ""
        if difference.packet is not None:
            arrival = self.arrivals[difference.packet]
            port = interface_name(arrival.interface, self.options.ports)
            where = f"packet {difference.packet} ({len(arrival.data)} bytes at {port}), "
        result["packet"] = difference.packet
        result["difference"] = (
            f"{where}{difference.what}: {device} {difference.actual}, {REFERENCE} {difference.expected}"
        )
        result["trace"] = list(trace)
        return result

    def _trace(self) -> list[str]:
        """Lines that say at which instruction the two parted: both run once more, side by side."""
        options = replace(self.options, waves=None)
        with self._device(self.backend, options) as card, self._device(REFERENCE, options) as reference:
            found = lockstep.run(card.device, reference.device, self.arrivals, self.pacing).difference
            if found is None:
                return ["every instruction did the same on both: the difference is outside the program"]
            return found.lines(card.device.name, REFERENCE, self._describe(card))

    def _describe(self, card: Nic) -> Callable[[int], list[str]]:
        """What says which instruction is at a slot of the card, and which line of C."""

        def describe(slot: int) -> list[str]:
            if not (found := ended.lying_at((held.loaded for held in card.programs.values()), slot)):
                return [f"slot {slot}: outside the program"]
            loaded, number = found
            name = "" if loaded.program is self.program else f"program {loaded.program.name}, "
            lines = [f"{name}{listing.instruction(loaded.whole, number)}", listing.source(loaded.whole, number)]
            return [line for line in lines if line]

        return describe


def _evidence(card: Nic, traffic: Traffic) -> Evidence:
    contents = {name: held.device_map.dump() for name, held in card.maps.items()}
    lost = {name: held.lost for name, held in card.maps.items() if isinstance(held, NicEvents)}
    counters, printed = card.device.counters(), [str(line) for line in card.trace]
    attached = card.attached(0)
    names = VERDICTS.get(attached.loaded.program.type) if attached and attached.loaded.program.type else XdpAction
    found = ended.places([held.loaded for held in card.programs.values()], traffic)
    return Evidence(card.device.name, card.device.capabilities, traffic, counters, contents, lost, printed, names,
                    found)  # fmt: skip


"""The backend `board`: a card at the other end of a wire behind the driver's Transport (docs/transport.md).

`board:/dev/ttyUSB0,key=FILE,baud=1000000` is the UART, `board:eth0,key=FILE,mac=02:…` an Ethernet interface that leads
to the card's management port; FILE has the card's key, 32 hexadecimal digits. patience=SECONDS is how long an answer
may take before it is asked for again.
"""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bpfnic.boards.batch import Batch
from bpfnic.boards.frames import PATIENCE, Frame, FrameWire
from bpfnic.boards.links import EthernetLink, SerialLink, interfaces
from bpfnic.boards.messages import parse_address
from bpfnic.boards.session import Link, Session
from bpfnic.host.capabilities import check_register_map
from bpfnic.host.device import (
    Arrival,
    Deliver,
    Departure,
    Device,
    DeviceOptions,
    OnStep,
    Pacing,
    Progress,
    Recording,
    Traffic,
    Transport,
)
from bpfnic.host.driver import RegisterDevice
from bpfnic.host.lockstep import Follower, Observe
from bpfnic.spec import card, registers
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.registers import BY_NAME
from bpfnic.spec.rings import EVENT_USER_BIT
from bpfnic.spec.wire import DEFAULT_ADDRESS, DEFAULT_KEY, KEY_BYTES

BAUD = 1_000_000


def open_device(options: DeviceOptions) -> Device:
    """The card that `options.place` names. Raises BpfnicError where none answers there, or one that isn't this
    driver's."""
    place, settings = _settings(options.place)
    key = DEFAULT_KEY
    if "key" in settings:
        key = _key(Path(settings["key"]))
    patience = _seconds(settings["patience"]) if "patience" in settings else None
    link: Link
    if place in interfaces():
        if "baud" in settings:
            raise BpfnicError(f"board: baud={settings['baud']}: {place} is an Ethernet interface")
        address = parse_address(settings["mac"]) if "mac" in settings else DEFAULT_ADDRESS
        link = EthernetLink(place, address, patience)
    else:
        if "mac" in settings:
            raise BpfnicError(f"board: mac={settings['mac']}: {place} is no Ethernet interface")
        link = SerialLink(place, _number("baud", settings.get("baud", str(BAUD))), patience)
    try:
        return open_card(link, key, options.budget)
    except BaseException:
        link.close()
        raise


def open_card(link: Link, key: bytes, budget: int | None = None) -> RegisterDevice:
    """The card behind a link, freed of what the last driver left there."""
    return RegisterDevice(BoardTransport(link, key), budget)


def _settings(place: str) -> tuple[str, dict[str, str]]:
    path, *others = place.split(",")
    if not path:
        raise BpfnicError("board: must be board:PLACE[,key=FILE], as board:/dev/ttyUSB0 or board:eth0")
    settings = dict(other.partition("=")[::2] for other in others)
    for name, value in settings.items():
        if name not in ("key", "baud", "mac", "patience") or not value:
            raise BpfnicError(f"board: {name}={value}: must be key=FILE, baud=N, mac=ADDRESS or patience=SECONDS")
    return path, settings


def _number(name: str, text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise BpfnicError(f"board: {name}={text}: must be a number from 1 on")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 3600:
        raise BpfnicError(f"board: patience={text}: must be seconds, as 0.5")
    return seconds


def _key(path: Path) -> bytes:
    try:
        key = bytes.fromhex(path.read_text())
    except OSError as error:
        raise BpfnicError(f"{path}: {error.strerror}") from None
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise BpfnicError(f"{path}: a key is {2 * KEY_BYTES} hexadecimal digits")
    return key


class BoardTransport(Transport):
    """A card behind a link. Frames go one at a time, and what became of each is read from the counters: its action and
    cause, where it left and how; not its verdict, nor the programs that ran or how long they took.

    Attributes
    ----------
    session : with the card.
    """

    wired = True

    def __init__(self, link: Link, key: bytes):
        self.name = f"board:{link.name}"
        self.session = Session(link, key)
        self._batch = Batch(self.session)
        self.deliver: Deliver = lambda frame: None
        check_register_map(self.name, self.read_all)
        self._ports = self.read(BY_NAME["PORTS"].address())
        self._take_over()

    def _take_over(self) -> None:
        """A NIC as it is behind a reset, but for its counters: nothing attached, no maps, nothing in flight. The ports
        are cut off from their MACs until `connect`, so that no other frames come than those of `run`."""
        every = range(self._ports + 1)
        self._route((1 << self._ports) - 1)
        self._put("CONTROL", 0)
        for name in registers.HOOKS.values():
            for interface in every:
                self._put(name, 0, interface)
        for interface in every:
            self._put("MODE", registers.MODE_INGRESS_WAITS, interface)
        end = time.monotonic() + PATIENCE
        while True:
            self._put("SNAPSHOT", 0)
            flying = [BY_NAME["IN_FLIGHT"].address(interface) for interface in range(self._ports + 2)]
            *flying, captured = self._batch.read([*flying, card.BY_NAME["CAPTURED"].address()])
            if captured:
                self._put(card.BY_NAME["RELEASE"], 0)
            elif not any(flying):
                break
            if time.monotonic() > end:
                raise BpfnicError(f"{self.name}: packets of the last driver do not leave the NIC")
        maps, _ = self._batch.read([BY_NAME["MAPS"].address(), BY_NAME["MAP_STATUS"].address()])
        self._put("MAP_TYPE", 0)
        for index in range(maps):
            self._put("MAP_COMMIT", index)
        for name in ("BUDGET", "MAP_WIDTH", "MAP_LOCK"):
            self._put(name, BY_NAME[name].reset)
        self._batch.flush()

    # -- registers ----------------------------------------------------------------------------------------------

    def _put(self, register: str | registers.Register, value: int, index: int = 0) -> None:
        register = BY_NAME[register] if isinstance(register, str) else register
        self._batch.write(register.address(index), value)

    def read(self, address: int) -> int:
        return self._batch.read([address])[0]

    def read_all(self, addresses: Sequence[int]) -> list[int]:
        return self._batch.read(addresses)

    def write(self, address: int, value: int) -> None:
        """Later, with others, but before the next read."""
        self._batch.write(address, value)

    # -- packets ------------------------------------------------------------------------------------------------

    def run(
        self,
        arrivals: Sequence[Arrival],
        pacing: Pacing,
        on_step: OnStep | None,
        replay: Recording | None,
        retirements: bool,
        observe: Observe | None,
    ) -> Traffic:
        """As Device.run, one frame at a time."""
        for asked, what in ((replay, "replay a run"), (retirements or observe, "show its instructions")):
            if asked:
                raise BpfnicError(f"{self.name} can't {what}")
        if not pacing.back_to_back:
            raise BpfnicError(f"{self.name} takes frames one by one, at no time of their own")
        if self.read(card.BY_NAME["ROUTE"].address()) != (1 << self._ports) - 1:
            raise BpfnicError(f"{self.name} runs the packets of its ports: it takes no others")
        began = time.monotonic()
        traffic = Traffic([], [])
        frames = FrameWire(self.name, self._batch, self._ports)
        for number, arrival in enumerate(arrivals):
            result, left = frames.send(number, arrival)
            traffic.packets.append(result)
            for frame in self._packets(left):
                traffic.departures.append(Departure(frame.interface, frame.data, number, queue=result.queue))
            if on_step:
                on_step(Progress(number + 1, len(arrivals), 0))
        self._packets(frames.rest())
        traffic.instructions = sum(packet.instructions or 0 for packet in traffic.packets)
        traffic.seconds = time.monotonic() - began
        return traffic

    def _packets(self, frames: Sequence[Frame]) -> list[Frame]:
        """Those that are no records; these are delivered."""
        for frame in frames:
            if frame.user >> EVENT_USER_BIT:
                self.deliver(frame.data)
        return [frame for frame in frames if not frame.user >> EVENT_USER_BIT]

    def connect(self) -> None:
        self._route(0)

    def _route(self, ports: int) -> None:
        """Cut these off from their MACs, a bit each, and no others. A NIC that is not enabled takes no frame, and one
        that waits for it holds up messages that come by the same port: so none may be connected to a MAC then."""
        self._put(card.BY_NAME["ROUTE"], ports)
        end = time.monotonic() + PATIENCE
        while self.read(card.BY_NAME["STATUS"].address()) & card.STATUS_CHANGING:
            if time.monotonic() > end:
                raise BpfnicError(f"{self.name}: a port's frame does not end")

    def follow(self, arrivals: Sequence[Arrival]) -> Follower:
        raise BpfnicError(f"{self.name} can't follow another device instruction by instruction")

    def close(self) -> None:
        """The NIC takes no frames any more, and its ports are cut off from their MACs."""
        with suppress(BpfnicError):  # it is gone
            self._route((1 << self._ports) - 1)
            self._put("CONTROL", 0)
            self._batch.flush()
        self.session.close()


"""A card over its management port: the driver and a packet socket as they are, over an interface of this machine whose
other end is a port of the card's own hardware, simulated."""

import pytest

from bpfnic.boards.device import open_device
from bpfnic.boards.links import EthernetLink
from bpfnic.boards.messages import parse_address
from bpfnic.host.device import Arrival, DeviceOptions
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import XdpAction
from tests.boards.simulated import KEY, NIC, SimulatedCard, ethernet, library


@pytest.fixture
def interface():
    card = SimulatedCard(library())
    try:
        with ethernet(card, 0) as name:
            yield name
    except OSError as error:
        pytest.skip(f"no TAP interface here: {error}")
    finally:
        card.close()


def test_a_driver_over_ethernet(interface, tmp_path):
    key = tmp_path / "key"
    key.write_text(KEY.hex())
    device = open_device(DeviceOptions(place=f"{interface},key={key},patience=3"))
    assert device.capabilities.map_bytes == NIC.map_bytes
    frame = bytes(range(100))
    traffic = device.run([Arrival(0, frame), Arrival(1, frame[:60]), Arrival(2, frame, egress=1)])
    results = [(packet.action, packet.egress, packet.data) for packet in traffic.packets]
    passed, sent = XdpAction.XDP_PASS, XdpAction.XDP_TX
    assert results == [(passed, 2, frame), (passed, 2, frame[:60]), (sent, 1, frame)]
    device.close()
    with pytest.raises(BpfnicError, match=f"^{interface}: its card has another key$"):
        open_device(DeviceOptions(place=f"{interface},patience=0.3"))
    with pytest.raises(BpfnicError, match=f"^{interface}: no card answers$"):
        open_device(DeviceOptions(place=f"{interface},mac=02:00:00:00:00:09,patience=0.05"))


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "^board: must be board:PLACE"),
        ("/dev/nothing", "^/dev/nothing: No such file or directory$"),
        ("/dev/null", "^/dev/null: "),
        ("/dev/tty,speed=9", "^board: speed=9: must be key=FILE, baud=N, mac=ADDRESS or patience=SECONDS$"),
        ("/dev/tty,baud=fast", "^board: baud=fast: must be a number from 1 on$"),
        ("/dev/tty,patience=-1", "^board: patience=-1: must be seconds, as 0.5$"),
        ("/dev/tty,key=/nowhere/key", "^/nowhere/key: No such file or directory$"),
        ("/dev/tty,key=/dev/null", "^/dev/null: a key is 32 hexadecimal digits$"),
        ("/dev/tty,mac=02:00:00:00:00:01", "^board: mac=02:00:00:00:00:01: /dev/tty is no Ethernet interface$"),
        ("lo,baud=9600", "^board: baud=9600: lo is an Ethernet interface$"),
        ("lo,mac=03:00:00:00:00:01", "^03:00:00:00:00:01: must be the MAC address of one card"),
        ("lo,mac=02:00", "^02:00: must be the MAC address of one card"),
    ],
)
def test_places_that_are_none(place, message):
    with pytest.raises(BpfnicError, match=message):
        open_device(DeviceOptions(place=place))


def test_an_interface_that_is_gone():
    with pytest.raises(BpfnicError, match="^nowhere0: No such device$"):
        EthernetLink("nowhere0", parse_address("02:00:00:00:00:01"))

"""`bpfnic run` on a card: the command, the driver and pyserial as they are, over a terminal to the card's own hardware,
simulated."""

import json
import os

import pytest
from click.testing import CliRunner

from bpfnic.boards.device import BAUD
from bpfnic.boards.links import SerialLink
from bpfnic.boards.session import Session
from bpfnic.host import capabilities, pcap
from bpfnic.host.cli import commands
from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.registers import BY_NAME
from bpfnic.spec.wire import Access
from tests.boards.simulated import KEY, SimulatedCard, library, terminal

FIREWALL, RULES = "firmware/programs/firewall.bpf.c", "firmware/samples/firewall.json"
BUDGET = BY_NAME["BUDGET"].address()
JOB = ("run", FIREWALL, "--map", RULES, "--entries", "rules=16", "--entries", "rules6=8", "--json")


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "key"
    path.write_text(KEY.hex() + "\n")
    return path


@pytest.fixture(scope="module")
def path():
    """A terminal that is a card's line. Each test takes the card over from the one before."""
    card = SimulatedCard(library())
    with terminal(card) as line:
        yield line
    card.close()


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    whole = pcap.read("firmware/samples/mixed.pcapng")
    some = [packet for packet in whole.packets if len(packet.data) < 200][:8]
    some += [next(packet for packet in whole.packets if len(packet.data) > 1000)]
    path = tmp_path_factory.mktemp("capture") / "some.pcapng"
    pcap.write(path, pcap.Capture(whole.interfaces, some))
    return path


def bpfnic(*words) -> dict:
    done = CliRunner().invoke(commands, [str(word) for word in words], standalone_mode=False)
    if done.exception:
        raise done.exception
    return json.loads(done.stdout)


def test_run_is_the_same_command_and_its_result_is_the_references(path, key, capture):
    place = f"board:{path},key={key},patience=20"
    card = bpfnic(*JOB, "--pcap", capture, "--backend", place, "--check")
    golden = bpfnic(*JOB, "--pcap", capture, "--backend", "golden")
    assert card["check"] == {"reference": "golden", "equal": True}
    assert card["packets"] == golden["packets"]
    assert card["interfaces"] == golden["interfaces"]
    assert {name: card["maps"][name] for name in ("rules", "rules6")} == {
        name: golden["maps"][name] for name in ("rules", "rules6")
    }
    assert card["device"]["backend"] == place and card["device"]["cpus"] == 8
    assert card["program"] == golden["program"]


def test_what_a_card_does_not_do_is_said(path, key, capture):
    place = ("--pcap", capture, "--backend", f"board:{path},key={key},patience=20")
    for words, message in (
        (("--unsafe",), "^--unsafe: a card takes no unverified program"),
        (("--lockstep",), "^--lockstep: a card doesn't show its instructions"),
        (("--timing", "pcap"), "^--timing pcap: a card takes the packets one by one"),
        (("--threads", "8"), "^--threads: a card is as its bitstream was built$"),
    ):
        with pytest.raises(BpfnicError, match=message):
            bpfnic(*JOB, *place, *words)


def test_a_card_of_another_version(path, key, capture, monkeypatch):
    """The driver's register map is of the next version, as after an update of one without the other."""
    its, ours = capabilities.VERSION >> 16, (capabilities.VERSION >> 16) + 1
    monkeypatch.setattr(capabilities, "VERSION", ours << 16)
    with pytest.raises(BpfnicError, match=f"^board:{path}: its register map has version {its}, not {ours}$"):
        bpfnic(*JOB, "--pcap", capture, "--backend", f"board:{path},key={key},patience=20")


def test_another_driver_takes_the_card_over(path):
    """The first one is told at its next request, which changes nothing, and the other one keeps the card."""
    first, second = (Session(SerialLink(path, BAUD, patience=0.3), KEY) for _ in range(2))
    (held,) = second.request([Access(BUDGET)])
    why = "the card has begun another session: another driver has it, or it was configured anew"
    with pytest.raises(BpfnicError, match=f"^{path}: {why}$"):
        first.request([Access(BUDGET, data=(held + 1,))])
    assert second.request([Access(BUDGET)]) == [held]
    first.close()
    second.close()


def test_another_key(path, tmp_path, capture):
    other = tmp_path / "other"
    other.write_text("00" * 16)
    with pytest.raises(BpfnicError, match=f"^{path}: its card has another key$"):
        bpfnic(*JOB, "--pcap", capture, "--backend", f"board:{path},key={other},patience=0.7")


def test_nobody_there(capture):
    master, slave = os.openpty()
    path = os.ttyname(slave)
    try:
        with pytest.raises(BpfnicError, match=f"^{path}: no card answers$"):
            bpfnic(*JOB, "--pcap", capture, "--backend", f"board:{path},patience=0.05")
    finally:
        os.close(master)
        os.close(slave)

"""Which loads and stores of a context Linux admits (xdp_is_valid_access, tc_cls_act_is_valid_access,
sk_filter_is_valid_access in net/core/filter.c), and what they leave."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bpfnic.host.verifier import text
from bpfnic.host.verifier.refusal import Refusal
from bpfnic.host.verifier.values import END, META, PACKET, ZERO, Held, Kind, loaded
from bpfnic.spec.programs import SK_BUFF, XDP_MD, ProgramType

if TYPE_CHECKING:
    from bpfnic.host.verifier.walk import Walk


@dataclass(frozen=True)
class Member:
    """Bytes of a context: `loads` are the widths in bytes of a load, `narrow`: any part of it that is as aligned as it
    is wide may be loaded too; `stores` those of a store. `kind`: what a load leaves, where that is no number."""

    name: str
    offset: int
    size: int
    loads: tuple[int, ...]
    narrow: bool = False
    stores: tuple[int, ...] = ()
    kind: Kind | None = None

    def allows(self, offset: int, size: int, write: bool) -> bool:
        """Whether an access that lies within the member is one of those."""
        if write:
            return size in self.stores
        return size in self.loads and offset == self.offset or self.narrow and size <= self.loads[0]


_POINTERS = {"data": PACKET, "data_meta": META, "data_end": END}


def _xdp(attach: str, device_bound: bool) -> tuple[Member, ...]:
    return tuple(
        Member(field.name, field.offset, field.size, (field.size,), kind=_POINTERS.get(field.name),
               stores=(4,) if device_bound and field.name == "rx_queue_index" else ())
        for field in XDP_MD
        if field.name != "egress_ifindex" or attach == "devmap"
    )  # fmt: skip


_UNSEEN = {"sk"}
"""Members that hold what the verifier doesn't follow."""


def _skb(tc: bool) -> tuple[Member, ...]:
    """struct __sk_buff, of which a socket filter sees less."""
    writable = {"mark", "tc_index", "priority", "tc_classid", "queue_mapping"} if tc else set()
    hidden = set() if tc else {"tc_classid", "wire_len"}
    members = []
    for field in SK_BUFF:
        name, offset, size = field.name, field.offset, field.size
        if not field.readable or name in hidden | _UNSEEN:
            continue
        if name == "cb":
            members.append(Member(name, offset, size, (8,), narrow=True, stores=(1, 2, 4, 8)))
        elif name in _POINTERS or size != 4:
            stores = (size,) if name == "tstamp" else ()
            if tc:  # sizes of a load as they are
                members.append(Member(name, offset, size, (size,), stores=stores, kind=_POINTERS.get(name)))
        else:
            members.append(Member(name, offset, 4, (4,), narrow=True, stores=(4,) if name in writable else ()))
    return tuple(members)


def members(type: ProgramType, attach: str = "", device_bound: bool = False) -> tuple[Member, ...]:
    """What a program of that type may access. `attach`: what the section says behind the type."""
    if type is ProgramType.XDP:
        return _xdp(attach, device_bound)
    return _skb(type is ProgramType.SCHED_CLS)


def _find(walk: "Walk", at: int, size: int, write: bool) -> Member | None:
    for member in walk.context:
        if member.offset <= at and at + size <= member.offset + member.size:
            return member if at % size == 0 and member.allows(at, size, write) else None
    return None


def access(walk: "Walk", base: int, pointer: Held, offset: int, size: int, write: bool) -> None:
    """Raises Refusal for an access that the type doesn't have."""
    unmoved(base, pointer)
    if _find(walk, offset, size, write) is None:
        inside = [m for m in walk.context if m.offset <= offset < m.offset + m.size]
        if not inside:
            why = f"Programs of this type have no member at byte {offset} of their context."
        elif write:
            why = f"Programs of this type can't write {inside[0].name}."
        else:
            why = f"{inside[0].name} isn't loaded as {size} bytes."
        raise Refusal(f"invalid bpf_context access off={offset} size={size}", register=base, why=why)


def unmoved(base: int, pointer: Held) -> None:
    """Raises Refusal for a context pointer to which something was added (check_ptr_off_reg)."""
    if pointer.off or pointer.number.mask or pointer.number.value:
        name = text.kind(pointer)
        if pointer.number.mask:
            bits = text.tnum(pointer.number.value, pointer.number.mask)
            raise Refusal(f"variable {name} access var_off={bits} disallowed", register=base)
        if pointer.off < 0:
            raise Refusal(f"negative offset {name} ptr R{base} off={pointer.off} disallowed", register=base)
        raise Refusal(f"dereference of modified {name} ptr R{base} off={pointer.off} disallowed", register=base,
                      why="The context pointer was moved; its members are loaded from the pointer itself.")  # fmt: skip


def load(walk: "Walk", pointer: Held, offset: int, size: int) -> Held:
    """What a load leaves that `access` admits."""
    member = _find(walk, offset, size, False)
    assert member
    return Held(member.kind, ZERO) if member.kind else loaded(8 * size)

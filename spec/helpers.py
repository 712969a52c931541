"""The helpers of Linux 6.18: number, C prototype, program types that may call each. Linux has frozen this list.

`firmware/include/bpf/bpf_helper_defs.h` is generated from these rows (tools/helper_defs.py). Prototypes are those of
linux/bpf.h as a BPF program sees them: contexts by their BPF names, maps as `void *`. Who may call what was asked of
the kernel itself, by loading a program of each type with each call, and a test asks again.
"""

import re
from dataclasses import dataclass
from enum import Enum, auto

from bpfnic.spec.errors import BpfnicError
from bpfnic.spec.programs import ProgramType


class Argument(Enum):
    """What a helper takes in r1 to r5."""

    MAP = auto()
    """A map: `struct bpf_map *`."""
    KEY = auto()
    """A pointer to as many readable bytes as the map's key has."""
    VALUE = auto()
    """A pointer to as many readable bytes as the map's value has."""
    CONTEXT = auto()
    """The program's own context."""
    SCALAR = auto()
    """A number."""
    ROOM = auto()
    """A pointer to as many bytes that may be written as the map's value has."""
    READ = auto()
    """A pointer to as many readable bytes as the next argument says."""
    READ_OR_NULL = auto()
    """The same, or 0."""
    WRITE = auto()
    """A pointer to as many bytes that may be written as the next argument says."""
    CHANGE = auto()
    """A pointer to as many bytes that are read and may be written as the next argument says."""
    SIZE = auto()
    """Bytes that the pointer before it leads to, at least 1."""
    SIZE_OR_ZERO = auto()
    """The same, or 0."""
    U32 = auto()
    """A pointer to 4 aligned bytes that are read and may be written."""
    LONG = auto()
    """A pointer to 8 aligned bytes that may be written."""
    TEXT = auto()
    """A pointer to zero-terminated text in a map that neither programs nor the host write any more."""
    FUNCTION = auto()
    """A function of the program, which the helper calls."""
    LOCAL_OR_NULL = auto()
    """A pointer into the stack, or 0, for that function."""
    LOCK = auto()
    """A pointer to the spin lock of a map value."""
    RECORD = auto()
    """A record of a ring buffer, as bpf_ringbuf_reserve gave it; the helper takes it back."""
    RECORD_SIZE = auto()
    """Bytes of that record, a constant."""
    ANY = auto()
    """As many registers as there are left, of which the helper reads those that it needs."""


class Result(Enum):
    """What a helper leaves in r0."""

    SCALAR = auto()
    VALUE_OR_NULL = auto()
    """A pointer to a map value, or 0."""
    RECORD_OR_NULL = auto()
    """A pointer to as many bytes as RECORD_SIZE said, or 0."""
    NOTHING = auto()
    """Nothing that a program may look at."""


@dataclass(frozen=True, slots=True)
class Helper:
    """One helper.

    `gpl` is true where only programs under a GPL-compatible license may call it. `takes` is None for a helper whose
    arguments nothing here checks (sockets, kernel structures, dynptrs and timers: no engine has it)."""

    number: int
    prototype: str
    programs: frozenset[ProgramType]
    gpl: bool
    takes: tuple[Argument, ...] | None
    gives: Result

    @property
    def name(self) -> str:
        """The name in C without `bpf_`, as in `BPF_FUNC_name`."""
        found = re.search(r"bpf_(\w+)\(", self.prototype)
        assert found
        return found[1]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Its parameters as C declares them; the last may be `...`."""
        inside = self.prototype[self.prototype.index("(") + 1 : -1]
        return () if inside == "void" else tuple(parameter.strip() for parameter in inside.split(","))


_TYPES = {"x": ProgramType.XDP, "t": ProgramType.SCHED_CLS, "s": ProgramType.SOCKET_FILTER}


def _row(number: int, programs: str, prototype: str, *, gpl: bool = False, takes: tuple[Argument, ...] | None = None,
         gives: Result = Result.SCALAR) -> Helper:  # fmt: skip
    return Helper(number, prototype, frozenset(_TYPES[letter] for letter in programs), gpl, takes, gives)


(MAP, KEY, VALUE, CONTEXT, SCALAR, ROOM, READ, READ_OR_NULL, WRITE, CHANGE, SIZE, SIZE_OR_ZERO, U32, LONG, TEXT,
 FUNCTION, LOCAL_OR_NULL, LOCK, RECORD, RECORD_SIZE, ANY) = Argument  # fmt: skip
VALUE_OR_NULL = Result.VALUE_OR_NULL

HELPERS: tuple[Helper, ...] = (
    # number, program types (x: XDP, t: tc, s: socket filter), prototype
    _row(1, "xts", "void *bpf_map_lookup_elem(void *map, const void *key)", takes=(MAP, KEY), gives=VALUE_OR_NULL),
    _row(2, "xts", "long bpf_map_update_elem(void *map, const void *key, const void *value, __u64 flags)",
         takes=(MAP, KEY, VALUE, SCALAR)),
    _row(3, "xts", "long bpf_map_delete_elem(void *map, const void *key)", takes=(MAP, KEY)),
    _row(4, "", "long bpf_probe_read(void *dst, __u32 size, const void *unsafe_ptr)"),
    _row(5, "xts", "__u64 bpf_ktime_get_ns(void)", takes=()),
    _row(6, "xts", "long bpf_trace_printk(const char *fmt, __u32 fmt_size, ...)", gpl=True, takes=(READ, SIZE, ANY)),
    _row(7, "xts", "__u32 bpf_get_prandom_u32(void)", takes=()),
    _row(8, "xts", "__u32 bpf_get_smp_processor_id(void)", takes=()),
    _row(9, "t",
         "long bpf_skb_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len, __u64 flags)",
         takes=(CONTEXT, SCALAR, READ, SIZE, SCALAR)),
    _row(10, "t", "long bpf_l3_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 size)",
         takes=(CONTEXT, SCALAR, SCALAR, SCALAR, SCALAR)),
    _row(11, "t", "long bpf_l4_csum_replace(struct __sk_buff *skb, __u32 offset, __u64 from, __u64 to, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR, SCALAR, SCALAR)),
    _row(12, "xts", "long bpf_tail_call(void *ctx, void *prog_array_map, __u32 index)",
         takes=(CONTEXT, MAP, SCALAR), gives=Result.NOTHING),
    _row(13, "t", "long bpf_clone_redirect(struct __sk_buff *skb, __u32 ifindex, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(14, "xts", "__u64 bpf_get_current_pid_tgid(void)", takes=()),
    _row(15, "xts", "__u64 bpf_get_current_uid_gid(void)", takes=()),
    _row(16, "xts", "long bpf_get_current_comm(void *buf, __u32 size_of_buf)", takes=(WRITE, SIZE)),
    _row(17, "xts", "__u32 bpf_get_cgroup_classid(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(18, "t", "long bpf_skb_vlan_push(struct __sk_buff *skb, __be16 vlan_proto, __u16 vlan_tci)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(19, "t", "long bpf_skb_vlan_pop(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(20, "t",
         "long bpf_skb_get_tunnel_key(struct __sk_buff *skb, struct bpf_tunnel_key *key, __u32 size, __u64 flags)",
         takes=(CONTEXT, WRITE, SIZE, SCALAR)),
    _row(21, "t",
         "long bpf_skb_set_tunnel_key(struct __sk_buff *skb, struct bpf_tunnel_key *key, __u32 size, __u64 flags)",
         takes=(CONTEXT, READ, SIZE, SCALAR)),
    _row(22, "xts", "__u64 bpf_perf_event_read(void *map, __u64 flags)", gpl=True, takes=(MAP, SCALAR)),
    _row(23, "xt", "long bpf_redirect(__u32 ifindex, __u64 flags)", takes=(SCALAR, SCALAR)),
    _row(24, "t", "__u32 bpf_get_route_realm(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(25, "xts", "long bpf_perf_event_output(void *ctx, void *map, __u64 flags, void *data, __u64 size)",
         gpl=True, takes=(CONTEXT, MAP, SCALAR, READ, SIZE_OR_ZERO)),
    _row(26, "ts", "long bpf_skb_load_bytes(const void *skb, __u32 offset, void *to, __u32 len)",
         takes=(CONTEXT, SCALAR, WRITE, SIZE)),
    _row(27, "", "long bpf_get_stackid(void *ctx, void *map, __u64 flags)"),
    _row(28, "xt", "__s64 bpf_csum_diff(__be32 *from, __u32 from_size, __be32 *to, __u32 to_size, __wsum seed)",
         takes=(READ_OR_NULL, SIZE_OR_ZERO, READ_OR_NULL, SIZE_OR_ZERO, SCALAR)),
    _row(29, "t", "long bpf_skb_get_tunnel_opt(struct __sk_buff *skb, void *opt, __u32 size)",
         takes=(CONTEXT, WRITE, SIZE)),
    _row(30, "t", "long bpf_skb_set_tunnel_opt(struct __sk_buff *skb, void *opt, __u32 size)",
         takes=(CONTEXT, READ, SIZE)),
    _row(31, "t", "long bpf_skb_change_proto(struct __sk_buff *skb, __be16 proto, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(32, "t", "long bpf_skb_change_type(struct __sk_buff *skb, __u32 type)", takes=(CONTEXT, SCALAR)),
    _row(33, "t", "long bpf_skb_under_cgroup(struct __sk_buff *skb, void *map, __u32 index)",
         takes=(CONTEXT, MAP, SCALAR)),
    _row(34, "t", "__u32 bpf_get_hash_recalc(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(35, "xts", "__u64 bpf_get_current_task(void)", gpl=True),
    _row(36, "", "long bpf_probe_write_user(void *dst, const void *src, __u32 len)"),
    _row(37, "xts", "long bpf_current_task_under_cgroup(void *map, __u32 index)"),
    _row(38, "t", "long bpf_skb_change_tail(struct __sk_buff *skb, __u32 len, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(39, "t", "long bpf_skb_pull_data(struct __sk_buff *skb, __u32 len)", takes=(CONTEXT, SCALAR)),
    _row(40, "t", "__s64 bpf_csum_update(struct __sk_buff *skb, __wsum csum)", takes=(CONTEXT, SCALAR)),
    _row(41, "t", "void bpf_set_hash_invalid(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(42, "xts", "long bpf_get_numa_node_id(void)", takes=()),
    _row(43, "t", "long bpf_skb_change_head(struct __sk_buff *skb, __u32 len, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(44, "x", "long bpf_xdp_adjust_head(struct xdp_md *xdp_md, int delta)", takes=(CONTEXT, SCALAR)),
    _row(45, "", "long bpf_probe_read_str(void *dst, __u32 size, const void *unsafe_ptr)"),
    _row(46, "ts", "__u64 bpf_get_socket_cookie(void *ctx)", takes=(CONTEXT,)),
    _row(47, "ts", "__u32 bpf_get_socket_uid(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(48, "t", "long bpf_set_hash(struct __sk_buff *skb, __u32 hash)", takes=(CONTEXT, SCALAR)),
    _row(49, "", "long bpf_setsockopt(void *bpf_socket, int level, int optname, void *optval, int optlen)"),
    _row(50, "t", "long bpf_skb_adjust_room(struct __sk_buff *skb, __s32 len_diff, __u32 mode, __u64 flags)",
         takes=(CONTEXT, SCALAR, SCALAR, SCALAR)),
    _row(51, "x", "long bpf_redirect_map(void *map, __u64 key, __u64 flags)", takes=(MAP, SCALAR, SCALAR)),
    _row(52, "", "long bpf_sk_redirect_map(struct __sk_buff *skb, void *map, __u32 key, __u64 flags)"),
    _row(53, "", "long bpf_sock_map_update(struct bpf_sock_ops *skops, void *map, void *key, __u64 flags)"),
    _row(54, "x", "long bpf_xdp_adjust_meta(struct xdp_md *xdp_md, int delta)", takes=(CONTEXT, SCALAR)),
    _row(55, "xts",
         "long bpf_perf_event_read_value(void *map, __u64 flags, struct bpf_perf_event_value *buf, "
         "__u32 buf_size)", gpl=True),
    _row(56, "",
         "long bpf_perf_prog_read_value(struct bpf_perf_event_data *ctx, struct bpf_perf_event_value *buf, "
         "__u32 buf_size)"),
    _row(57, "", "long bpf_getsockopt(void *bpf_socket, int level, int optname, void *optval, int optlen)"),
    _row(58, "", "long bpf_override_return(struct pt_regs *regs, __u64 rc)"),
    _row(59, "", "long bpf_sock_ops_cb_flags_set(struct bpf_sock_ops *bpf_sock, int argval)"),
    _row(60, "", "long bpf_msg_redirect_map(struct sk_msg_md *msg, void *map, __u32 key, __u64 flags)"),
    _row(61, "", "long bpf_msg_apply_bytes(struct sk_msg_md *msg, __u32 bytes)"),
    _row(62, "", "long bpf_msg_cork_bytes(struct sk_msg_md *msg, __u32 bytes)"),
    _row(63, "", "long bpf_msg_pull_data(struct sk_msg_md *msg, __u32 start, __u32 end, __u64 flags)"),
    _row(64, "", "long bpf_bind(struct bpf_sock_addr *ctx, struct sockaddr *addr, int addr_len)"),
    _row(65, "x", "long bpf_xdp_adjust_tail(struct xdp_md *xdp_md, int delta)", takes=(CONTEXT, SCALAR)),
    _row(66, "t",
         "long bpf_skb_get_xfrm_state(struct __sk_buff *skb, __u32 index, struct bpf_xfrm_state *xfrm_state, "
         "__u32 size, __u64 flags)"),
    _row(67, "", "long bpf_get_stack(void *ctx, void *buf, __u32 size, __u64 flags)"),
    _row(68, "ts",
         "long bpf_skb_load_bytes_relative(const void *skb, __u32 offset, void *to, __u32 len, __u32 start_header)",
         takes=(CONTEXT, SCALAR, WRITE, SIZE, SCALAR)),
    _row(69, "xt", "long bpf_fib_lookup(void *ctx, struct bpf_fib_lookup *params, int plen, __u32 flags)",
         gpl=True, takes=(CONTEXT, CHANGE, SIZE, SCALAR)),
    _row(70, "", "long bpf_sock_hash_update(struct bpf_sock_ops *skops, void *map, void *key, __u64 flags)"),
    _row(71, "", "long bpf_msg_redirect_hash(struct sk_msg_md *msg, void *map, void *key, __u64 flags)"),
    _row(72, "", "long bpf_sk_redirect_hash(struct __sk_buff *skb, void *map, void *key, __u64 flags)"),
    _row(73, "", "long bpf_lwt_push_encap(struct __sk_buff *skb, __u32 type, void *hdr, __u32 len)"),
    _row(74, "", "long bpf_lwt_seg6_store_bytes(struct __sk_buff *skb, __u32 offset, const void *from, __u32 len)"),
    _row(75, "", "long bpf_lwt_seg6_adjust_srh(struct __sk_buff *skb, __u32 offset, __s32 delta)"),
    _row(76, "", "long bpf_lwt_seg6_action(struct __sk_buff *skb, __u32 action, void *param, __u32 param_len)"),
    _row(77, "", "long bpf_rc_repeat(void *ctx)"),
    _row(78, "", "long bpf_rc_keydown(void *ctx, __u32 protocol, __u64 scancode, __u32 toggle)"),
    _row(79, "t", "__u64 bpf_skb_cgroup_id(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(80, "xts", "__u64 bpf_get_current_cgroup_id(void)", takes=()),
    _row(81, "", "void *bpf_get_local_storage(void *map, __u64 flags)"),
    _row(82, "", "long bpf_sk_select_reuseport(struct sk_reuseport_md *reuse, void *map, void *key, __u64 flags)"),
    _row(83, "t", "__u64 bpf_skb_ancestor_cgroup_id(struct __sk_buff *skb, int ancestor_level)",
         takes=(CONTEXT, SCALAR)),
    _row(84, "xt",
         "struct bpf_sock *bpf_sk_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 tuple_size, "
         "__u64 netns, __u64 flags)"),
    _row(85, "xt",
         "struct bpf_sock *bpf_sk_lookup_udp(void *ctx, struct bpf_sock_tuple *tuple, __u32 tuple_size, "
         "__u64 netns, __u64 flags)"),
    _row(86, "xt", "long bpf_sk_release(void *sock)"),
    _row(87, "xts", "long bpf_map_push_elem(void *map, const void *value, __u64 flags)", takes=(MAP, VALUE, SCALAR)),
    _row(88, "xts", "long bpf_map_pop_elem(void *map, void *value)", takes=(MAP, ROOM)),
    _row(89, "xts", "long bpf_map_peek_elem(void *map, void *value)", takes=(MAP, ROOM)),
    _row(90, "", "long bpf_msg_push_data(struct sk_msg_md *msg, __u32 start, __u32 len, __u64 flags)"),
    _row(91, "", "long bpf_msg_pop_data(struct sk_msg_md *msg, __u32 start, __u32 len, __u64 flags)"),
    _row(92, "", "long bpf_rc_pointer_rel(void *ctx, __s32 rel_x, __s32 rel_y)"),
    _row(93, "xts", "long bpf_spin_lock(struct bpf_spin_lock *lock)", takes=(LOCK,), gives=Result.NOTHING),
    _row(94, "xts", "long bpf_spin_unlock(struct bpf_spin_lock *lock)", takes=(LOCK,), gives=Result.NOTHING),
    _row(95, "t", "struct bpf_sock *bpf_sk_fullsock(struct bpf_sock *sk)"),
    _row(96, "t", "struct bpf_tcp_sock *bpf_tcp_sock(struct bpf_sock *sk)"),
    _row(97, "t", "long bpf_skb_ecn_set_ce(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(98, "t", "struct bpf_sock *bpf_get_listener_sock(struct bpf_sock *sk)"),
    _row(99, "xt",
         "struct bpf_sock *bpf_skc_lookup_tcp(void *ctx, struct bpf_sock_tuple *tuple, __u32 tuple_size, "
         "__u64 netns, __u64 flags)"),
    _row(100, "xt",
         "long bpf_tcp_check_syncookie(void *sk, void *iph, __u32 iph_len, struct tcphdr *th, __u32 th_len)", gpl=True),
    _row(101, "", "long bpf_sysctl_get_name(struct bpf_sysctl *ctx, char *buf, unsigned long buf_len, __u64 flags)"),
    _row(102, "", "long bpf_sysctl_get_current_value(struct bpf_sysctl *ctx, char *buf, unsigned long buf_len)"),
    _row(103, "", "long bpf_sysctl_get_new_value(struct bpf_sysctl *ctx, char *buf, unsigned long buf_len)"),
    _row(104, "", "long bpf_sysctl_set_new_value(struct bpf_sysctl *ctx, const char *buf, unsigned long buf_len)"),
    _row(105, "xts", "long bpf_strtol(const char *buf, unsigned long buf_len, __u64 flags, long *res)",
         takes=(READ, SIZE, SCALAR, LONG)),
    _row(106, "xts", "long bpf_strtoul(const char *buf, unsigned long buf_len, __u64 flags, unsigned long *res)",
         takes=(READ, SIZE, SCALAR, LONG)),
    _row(107, "t", "void *bpf_sk_storage_get(void *map, void *sk, void *value, __u64 flags)"),
    _row(108, "t", "long bpf_sk_storage_delete(void *map, void *sk)"),
    _row(109, "xts", "long bpf_send_signal(__u32 sig)", takes=(SCALAR,)),
    _row(110, "xt",
         "__s64 bpf_tcp_gen_syncookie(void *sk, void *iph, __u32 iph_len, struct tcphdr *th, __u32 th_len)", gpl=True),
    _row(111, "", "long bpf_skb_output(void *ctx, void *map, __u64 flags, void *data, __u64 size)"),
    _row(112, "xts", "long bpf_probe_read_user(void *dst, __u32 size, const void *unsafe_ptr)", gpl=True),
    _row(113, "xts", "long bpf_probe_read_kernel(void *dst, __u32 size, const void *unsafe_ptr)", gpl=True),
    _row(114, "xts", "long bpf_probe_read_user_str(void *dst, __u32 size, const void *unsafe_ptr)", gpl=True),
    _row(115, "xts", "long bpf_probe_read_kernel_str(void *dst, __u32 size, const void *unsafe_ptr)", gpl=True),
    _row(116, "", "long bpf_tcp_send_ack(void *tp, __u32 rcv_nxt)"),
    _row(117, "xts", "long bpf_send_signal_thread(__u32 sig)", takes=(SCALAR,)),
    _row(118, "xts", "__u64 bpf_jiffies64(void)", takes=()),
    _row(119, "", "long bpf_read_branch_records(struct bpf_perf_event_data *ctx, void *buf, __u32 size, __u64 flags)"),
    _row(120, "xts",
         "long bpf_get_ns_current_pid_tgid(__u64 dev, __u64 ino, struct bpf_pidns_info *nsdata, __u32 size)"),
    _row(121, "", "long bpf_xdp_output(void *ctx, void *map, __u64 flags, void *data, __u64 size)"),
    _row(122, "ts", "__u64 bpf_get_netns_cookie(void *ctx)"),
    _row(123, "xts", "__u64 bpf_get_current_ancestor_cgroup_id(int ancestor_level)", takes=(SCALAR,)),
    _row(124, "t", "long bpf_sk_assign(void *ctx, void *sk, __u64 flags)"),
    _row(125, "xts", "__u64 bpf_ktime_get_boot_ns(void)", takes=()),
    _row(126, "",
         "long bpf_seq_printf(struct seq_file *m, const char *fmt, __u32 fmt_size, const void *data, __u32 data_len)"),
    _row(127, "", "long bpf_seq_write(struct seq_file *m, const void *data, __u32 len)"),
    _row(128, "", "__u64 bpf_sk_cgroup_id(void *sk)"),
    _row(129, "", "__u64 bpf_sk_ancestor_cgroup_id(void *sk, int ancestor_level)"),
    _row(130, "xts", "long bpf_ringbuf_output(void *ringbuf, void *data, __u64 size, __u64 flags)",
         takes=(MAP, READ, SIZE_OR_ZERO, SCALAR)),
    _row(131, "xts", "void *bpf_ringbuf_reserve(void *ringbuf, __u64 size, __u64 flags)",
         takes=(MAP, RECORD_SIZE, SCALAR), gives=Result.RECORD_OR_NULL),
    _row(132, "xts", "void bpf_ringbuf_submit(void *data, __u64 flags)", takes=(RECORD, SCALAR), gives=Result.NOTHING),
    _row(133, "xts", "void bpf_ringbuf_discard(void *data, __u64 flags)", takes=(RECORD, SCALAR), gives=Result.NOTHING),
    _row(134, "xts", "__u64 bpf_ringbuf_query(void *ringbuf, __u64 flags)", takes=(MAP, SCALAR)),
    _row(135, "t", "long bpf_csum_level(struct __sk_buff *skb, __u64 level)", takes=(CONTEXT, SCALAR)),
    _row(136, "xts", "struct tcp6_sock *bpf_skc_to_tcp6_sock(void *sk)"),
    _row(137, "xts", "struct tcp_sock *bpf_skc_to_tcp_sock(void *sk)"),
    _row(138, "xts", "struct tcp_timewait_sock *bpf_skc_to_tcp_timewait_sock(void *sk)"),
    _row(139, "xts", "struct tcp_request_sock *bpf_skc_to_tcp_request_sock(void *sk)"),
    _row(140, "xts", "struct udp6_sock *bpf_skc_to_udp6_sock(void *sk)"),
    _row(141, "xts", "long bpf_get_task_stack(struct task_struct *task, void *buf, __u32 size, __u64 flags)"),
    _row(142, "", "long bpf_load_hdr_opt(struct bpf_sock_ops *skops, void *searchby_res, __u32 len, __u64 flags)"),
    _row(143, "", "long bpf_store_hdr_opt(struct bpf_sock_ops *skops, const void *from, __u32 len, __u64 flags)"),
    _row(144, "", "long bpf_reserve_hdr_opt(struct bpf_sock_ops *skops, __u32 len, __u64 flags)"),
    _row(145, "", "void *bpf_inode_storage_get(void *map, void *inode, void *value, __u64 flags)"),
    _row(146, "", "int bpf_inode_storage_delete(void *map, void *inode)"),
    _row(147, "", "long bpf_d_path(const struct path *path, char *buf, __u32 sz)"),
    _row(148, "xts", "long bpf_copy_from_user(void *dst, __u32 size, const void *user_ptr)"),
    _row(149, "xts",
         "long bpf_snprintf_btf(char *str, __u32 str_size, struct btf_ptr *ptr, __u32 btf_ptr_size, __u64 flags)"),
    _row(150, "", "long bpf_seq_printf_btf(struct seq_file *m, struct btf_ptr *ptr, __u32 ptr_size, __u64 flags)"),
    _row(151, "t", "__u64 bpf_skb_cgroup_classid(struct __sk_buff *skb)", takes=(CONTEXT,)),
    _row(152, "t", "long bpf_redirect_neigh(__u32 ifindex, struct bpf_redir_neigh *params, int plen, __u64 flags)",
         takes=(SCALAR, READ_OR_NULL, SIZE_OR_ZERO, SCALAR)),
    _row(153, "xts", "void *bpf_per_cpu_ptr(const void *percpu_ptr, __u32 cpu)"),
    _row(154, "xts", "void *bpf_this_cpu_ptr(const void *percpu_ptr)"),
    _row(155, "t", "long bpf_redirect_peer(__u32 ifindex, __u64 flags)", takes=(SCALAR, SCALAR)),
    _row(156, "xts", "void *bpf_task_storage_get(void *map, struct task_struct *task, void *value, __u64 flags)"),
    _row(157, "xts", "long bpf_task_storage_delete(void *map, struct task_struct *task)"),
    _row(158, "xts", "struct task_struct *bpf_get_current_task_btf(void)", gpl=True),
    _row(159, "", "long bpf_bprm_opts_set(struct linux_binprm *bprm, __u64 flags)"),
    _row(160, "xts", "__u64 bpf_ktime_get_coarse_ns(void)", takes=()),
    _row(161, "", "long bpf_ima_inode_hash(struct inode *inode, void *dst, __u32 size)"),
    _row(162, "", "struct socket *bpf_sock_from_file(struct file *file)"),
    _row(163, "xt", "long bpf_check_mtu(void *ctx, __u32 ifindex, __u32 *mtu_len, __s32 len_diff, __u64 flags)",
         gpl=True, takes=(CONTEXT, SCALAR, U32, SCALAR, SCALAR)),
    _row(164, "xts", "long bpf_for_each_map_elem(void *map, void *callback_fn, void *callback_ctx, __u64 flags)",
         takes=(MAP, FUNCTION, LOCAL_OR_NULL, SCALAR)),
    _row(165, "xts", "long bpf_snprintf(char *str, __u32 str_size, const char *fmt, __u64 *data, __u32 data_len)",
         gpl=True, takes=(WRITE, SIZE_OR_ZERO, TEXT, READ_OR_NULL, SIZE_OR_ZERO)),
    _row(166, "", "long bpf_sys_bpf(__u32 cmd, void *attr, __u32 attr_size)"),
    _row(167, "", "long bpf_btf_find_by_name_kind(char *name, int name_sz, __u32 kind, int flags)"),
    _row(168, "", "long bpf_sys_close(__u32 fd)"),
    _row(169, "xts", "long bpf_timer_init(struct bpf_timer *timer, void *map, __u64 flags)", gpl=True),
    _row(170, "xts", "long bpf_timer_set_callback(struct bpf_timer *timer, void *callback_fn)", gpl=True),
    _row(171, "xts", "long bpf_timer_start(struct bpf_timer *timer, __u64 nsecs, __u64 flags)", gpl=True),
    _row(172, "xts", "long bpf_timer_cancel(struct bpf_timer *timer)", gpl=True),
    _row(173, "", "__u64 bpf_get_func_ip(void *ctx)"),
    _row(174, "", "__u64 bpf_get_attach_cookie(void *ctx)"),
    _row(175, "xts", "long bpf_task_pt_regs(struct task_struct *task)", gpl=True),
    _row(176, "xts", "long bpf_get_branch_snapshot(void *entries, __u32 size, __u64 flags)", gpl=True),
    _row(177, "xts", "long bpf_trace_vprintk(const char *fmt, __u32 fmt_size, const void *data, __u32 data_len)",
         gpl=True, takes=(READ, SIZE, READ_OR_NULL, SIZE_OR_ZERO)),
    _row(178, "xts", "struct unix_sock *bpf_skc_to_unix_sock(void *sk)"),
    _row(179, "", "long bpf_kallsyms_lookup_name(const char *name, int name_sz, int flags, __u64 *res)"),
    _row(180, "xts",
         "long bpf_find_vma(struct task_struct *task, __u64 addr, void *callback_fn, void *callback_ctx, __u64 flags)"),
    _row(181, "xts", "long bpf_loop(__u32 nr_loops, void *callback_fn, void *callback_ctx, __u64 flags)",
         takes=(SCALAR, FUNCTION, LOCAL_OR_NULL, SCALAR)),
    _row(182, "xts", "long bpf_strncmp(const char *s1, __u32 s1_sz, const char *s2)", takes=(READ, SIZE, TEXT)),
    _row(183, "", "long bpf_get_func_arg(void *ctx, __u32 n, __u64 *value)"),
    _row(184, "", "long bpf_get_func_ret(void *ctx, __u64 *value)"),
    _row(185, "", "long bpf_get_func_arg_cnt(void *ctx)"),
    _row(186, "", "int bpf_get_retval(void)"),
    _row(187, "", "int bpf_set_retval(int retval)"),
    _row(188, "x", "__u64 bpf_xdp_get_buff_len(struct xdp_md *xdp_md)", takes=(CONTEXT,)),
    _row(189, "x", "long bpf_xdp_load_bytes(struct xdp_md *xdp_md, __u32 offset, void *buf, __u32 len)",
         takes=(CONTEXT, SCALAR, WRITE, SIZE)),
    _row(190, "x", "long bpf_xdp_store_bytes(struct xdp_md *xdp_md, __u32 offset, void *buf, __u32 len)",
         takes=(CONTEXT, SCALAR, READ, SIZE)),
    _row(191, "xts",
         "long bpf_copy_from_user_task(void *dst, __u32 size, const void *user_ptr, struct task_struct *tsk, "
         "__u64 flags)", gpl=True),
    _row(192, "t", "long bpf_skb_set_tstamp(struct __sk_buff *skb, __u64 tstamp, __u32 tstamp_type)",
         takes=(CONTEXT, SCALAR, SCALAR)),
    _row(193, "", "long bpf_ima_file_hash(struct file *file, void *dst, __u32 size)"),
    _row(194, "xts", "void *bpf_kptr_xchg(void *dst, void *ptr)"),
    _row(195, "xts", "void *bpf_map_lookup_percpu_elem(void *map, const void *key, __u32 cpu)",
         takes=(MAP, KEY, SCALAR), gives=VALUE_OR_NULL),
    _row(196, "xts", "struct mptcp_sock *bpf_skc_to_mptcp_sock(void *sk)"),
    _row(197, "xts", "long bpf_dynptr_from_mem(void *data, __u64 size, __u64 flags, struct bpf_dynptr *ptr)"),
    _row(198, "xts", "long bpf_ringbuf_reserve_dynptr(void *ringbuf, __u32 size, __u64 flags, struct bpf_dynptr *ptr)"),
    _row(199, "xts", "void bpf_ringbuf_submit_dynptr(struct bpf_dynptr *ptr, __u64 flags)"),
    _row(200, "xts", "void bpf_ringbuf_discard_dynptr(struct bpf_dynptr *ptr, __u64 flags)"),
    _row(201, "xts",
         "long bpf_dynptr_read(void *dst, __u64 len, const struct bpf_dynptr *src, __u64 offset, __u64 flags)"),
    _row(202, "xts",
         "long bpf_dynptr_write(const struct bpf_dynptr *dst, __u64 offset, void *src, __u64 len, __u64 flags)"),
    _row(203, "xts", "void *bpf_dynptr_data(const struct bpf_dynptr *ptr, __u64 offset, __u64 len)"),
    _row(204, "xt",
         "__s64 bpf_tcp_raw_gen_syncookie_ipv4(struct iphdr *iph, struct tcphdr *th, __u32 th_len)", gpl=True),
    _row(205, "xt",
         "__s64 bpf_tcp_raw_gen_syncookie_ipv6(struct ipv6hdr *iph, struct tcphdr *th, __u32 th_len)", gpl=True),
    _row(206, "xt", "long bpf_tcp_raw_check_syncookie_ipv4(struct iphdr *iph, struct tcphdr *th)", gpl=True),
    _row(207, "xt", "long bpf_tcp_raw_check_syncookie_ipv6(struct ipv6hdr *iph, struct tcphdr *th)", gpl=True),
    _row(208, "xts", "__u64 bpf_ktime_get_tai_ns(void)", takes=()),
    _row(209, "xts", "long bpf_user_ringbuf_drain(void *map, void *callback_fn, void *ctx, __u64 flags)"),
    _row(210, "xts", "void *bpf_cgrp_storage_get(void *map, struct cgroup *cgroup, void *value, __u64 flags)"),
    _row(211, "xts", "long bpf_cgrp_storage_delete(void *map, struct cgroup *cgroup)"),
)  # fmt: skip

MAP_WALK = _row(252, "", "__u64 bpf_map_walk(void *map, __u64 where)")
"""What routines of the runtime alone may call: the next step of a walk through a hash map. `where`: 0 in the upper half
for the first step, otherwise the upper half of the last answer; below it the address in map memory, a multiple of 8,
where the key of the last step is and the next one's goes, filled up with zeros to 8 bytes (4, where it has no more than
4). The answer: in the lower half the address of this CPU's value, or 0 where there was none yet: then it is to be asked
again; 0 as a whole behind the last. Each key that stays is met, though its value be replaced, and once, unless between
two steps the last one's key goes together with another, or comes back. What is met in which order is the device's
business: it is recorded, as the clock is."""

BY_NUMBER: dict[int, Helper] = {helper.number: helper for helper in (*HELPERS, MAP_WALK)}
BY_NAME: dict[str, Helper] = {helper.name: helper for helper in HELPERS}


def _numbers(names: str) -> frozenset[int]:
    return frozenset(BY_NAME[name].number for name in names.split())


CHANGES_PACKET = _numbers("""
    skb_store_bytes l3_csum_replace l4_csum_replace clone_redirect skb_vlan_push skb_vlan_pop skb_change_proto
    skb_change_tail skb_pull_data skb_change_head skb_adjust_room xdp_adjust_head xdp_adjust_meta xdp_adjust_tail
""")
"""Helpers behind which no pointer into the packet may be used (kernel: bpf_helper_changes_pkt_data)."""

# Where each helper is that a program of some type may call: hardware, firmware or nowhere. A name stands in one place.

HARDWARE = _numbers("""
    map_lookup_elem map_update_elem map_delete_elem map_push_elem map_pop_elem map_peek_elem spin_lock spin_unlock
    ktime_get_ns get_prandom_u32 get_smp_processor_id tail_call redirect redirect_map xdp_adjust_head xdp_adjust_tail
    csum_diff xdp_adjust_meta ktime_get_boot_ns ktime_get_coarse_ns clone_redirect
    perf_event_output ringbuf_output ringbuf_reserve ringbuf_submit ringbuf_discard ringbuf_query
""")
"""What the core and its units do for programs (hdl/core/decode.py)."""

LIBRARY = _numbers("""
    xdp_get_buff_len xdp_load_bytes xdp_store_bytes strncmp strtol strtoul loop for_each_map_elem map_lookup_percpu_elem
    jiffies64 ktime_get_tai_ns get_numa_node_id
""")
"""Functions of the runtime (firmware/runtime/), linked into the programs that call them."""

PRIVILEGED = _numbers("""
    skb_load_bytes skb_load_bytes_relative skb_store_bytes l3_csum_replace l4_csum_replace skb_pull_data
    skb_change_tail skb_change_head skb_change_proto skb_change_type skb_adjust_room skb_vlan_push skb_vlan_pop
    set_hash_invalid set_hash get_hash_recalc csum_update csum_level skb_ecn_set_ce skb_get_tunnel_key
    skb_set_tunnel_key skb_set_tstamp fib_lookup check_mtu redirect_neigh trace_printk trace_vprintk
""")
"""Routines of the runtime that run in the firmware's frame (isa.Group.FIRMWARE), linked likewise."""

OTHER_IN_TC = _numbers("redirect clone_redirect")
"""Of HARDWARE, those that do in tc programs something else than in XDP ones: there they are such routines too."""

_REFUSED = {
    "there is no process here": "get_current_pid_tgid get_current_uid_gid get_current_comm get_current_task "
        "get_current_task_btf get_ns_current_pid_tgid get_task_stack task_storage_get task_storage_delete task_pt_regs "
        "find_vma send_signal send_signal_thread copy_from_user copy_from_user_task probe_read_user "
        "probe_read_user_str get_cgroup_classid",
    "there are no cgroups here": "get_current_cgroup_id get_current_ancestor_cgroup_id current_task_under_cgroup "
        "skb_under_cgroup skb_cgroup_id skb_ancestor_cgroup_id skb_cgroup_classid cgrp_storage_get cgrp_storage_delete",
    "there are no sockets here": "get_socket_cookie get_socket_uid sk_lookup_tcp sk_lookup_udp skc_lookup_tcp "
        "sk_release sk_fullsock tcp_sock get_listener_sock sk_storage_get sk_storage_delete sk_assign "
        "tcp_check_syncookie tcp_gen_syncookie skc_to_tcp6_sock skc_to_tcp_sock skc_to_tcp_timewait_sock "
        "skc_to_tcp_request_sock skc_to_udp6_sock skc_to_unix_sock skc_to_mptcp_sock",
    "SYN cookies need the host's secret": "tcp_raw_gen_syncookie_ipv4 tcp_raw_gen_syncookie_ipv6 "
        "tcp_raw_check_syncookie_ipv4 tcp_raw_check_syncookie_ipv6",
    "there are no network namespaces here": "get_netns_cookie redirect_peer",
    "there is no kernel memory here": "probe_read_kernel probe_read_kernel_str snprintf_btf per_cpu_ptr this_cpu_ptr",
    "there are no performance counters here": "perf_event_read perf_event_read_value get_branch_snapshot",
    "there are no timers here": "timer_init timer_set_callback timer_start timer_cancel",
    "there are no kernel objects here": "kptr_xchg",
    "there are no dynptrs here": "dynptr_from_mem dynptr_read dynptr_write dynptr_data ringbuf_reserve_dynptr "
        "ringbuf_submit_dynptr ringbuf_discard_dynptr",
    "there is no USER_RINGBUF here": "user_ringbuf_drain",
    "text is made by the host, from what bpf_trace_printk and records send": "snprintf",
    "there is no IPsec here": "skb_get_xfrm_state",
    "tunnels have no options here": "skb_get_tunnel_opt skb_set_tunnel_opt",
    "routes have no realms here": "get_route_realm",
    "a port has no peer in another network namespace": "redirect_peer",
}
REFUSED: dict[int, str] = {number: why for why, names in _REFUSED.items() for number in _numbers(names)}
"""Why the others aren't there."""

JIFFIES_PER_SECOND = 250
"""Of bpf_jiffies64: what most distributions configure (CONFIG_HZ)."""

RETURN_FIRST = 5
"""The one helper of the public conformance suite's machines: it returns its first argument."""


def find(number: int) -> Helper:
    """The helper of that number. Raises BpfnicError for a number that Linux 6.18 doesn't know."""
    try:
        return BY_NUMBER[number]
    except KeyError:
        raise BpfnicError(f"unknown helper {number}: Linux 6.18 has 1 to {HELPERS[-1].number}") from None

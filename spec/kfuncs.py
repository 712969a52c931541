"""Functions of the kernel that programs call by BTF id (`extern … __ksym`) and that are no helpers: those of Linux 6.18
that XDP, tc and socket filter programs may call, and where each is here."""

from bpfnic.spec.metadata import FUNCTIONS as METADATA
from bpfnic.spec.programs import ProgramType

NUMBERS = frozenset({"bpf_iter_num_new", "bpf_iter_num_next", "bpf_iter_num_destroy"})
"""What bpf_for() and bpf_repeat() are made of."""


def callable(type: ProgramType | None) -> frozenset[str]:
    """The functions that a program of a type may call: library functions of the runtime (firmware/runtime/)."""
    return NUMBERS | METADATA.keys() if type is ProgramType.XDP else NUMBERS


_REFUSED = {
    "there are no dynptrs here": "bpf_dynptr_from_xdp bpf_dynptr_from_skb bpf_dynptr_from_skb_meta bpf_dynptr_slice "
        "bpf_dynptr_slice_rdwr bpf_dynptr_adjust bpf_dynptr_is_null bpf_dynptr_is_rdonly bpf_dynptr_size "
        "bpf_dynptr_clone bpf_dynptr_copy bpf_dynptr_memset",
    "the host's flow table isn't known here": "bpf_xdp_flow_lookup",
    "there is no connection tracking here": "bpf_xdp_ct_alloc bpf_xdp_ct_lookup bpf_skb_ct_alloc bpf_skb_ct_lookup "
        "bpf_ct_insert_entry bpf_ct_release bpf_ct_set_timeout bpf_ct_change_timeout bpf_ct_set_status "
        "bpf_ct_change_status bpf_ct_set_nat_info",
    "there is no IPsec here": "bpf_xdp_get_xfrm_state bpf_xdp_xfrm_state_release bpf_skb_get_xfrm_info "
        "bpf_skb_set_xfrm_info",
    "there are no FOU tunnels here": "bpf_skb_set_fou_encap bpf_skb_get_fou_encap",
    "there are no sockets here": "bpf_sk_assign_tcp_reqsk bpf_sock_destroy",
    "there is no cryptography here": "bpf_crypto_ctx_create bpf_crypto_ctx_acquire bpf_crypto_ctx_release "
        "bpf_crypto_encrypt bpf_crypto_decrypt",
    "there are no kernel objects here": "bpf_obj_new_impl bpf_obj_drop_impl bpf_percpu_obj_new_impl "
        "bpf_percpu_obj_drop_impl bpf_refcount_acquire_impl bpf_list_push_front_impl bpf_list_push_back_impl "
        "bpf_list_pop_front bpf_list_pop_back bpf_list_front bpf_list_back bpf_rbtree_add_impl bpf_rbtree_remove "
        "bpf_rbtree_first bpf_rbtree_root bpf_rbtree_left bpf_rbtree_right",
    "there is no kernel memory here": "bpf_cast_to_kern_ctx bpf_rdonly_cast bpf_rcu_read_lock bpf_rcu_read_unlock "
        "bpf_preempt_disable bpf_preempt_enable bpf_local_irq_save bpf_local_irq_restore bpf_get_kmem_cache "
        "bpf_probe_read_kernel_dynptr bpf_map_sum_elem_count",
    "there is no process here": "bpf_task_acquire bpf_task_release bpf_task_from_pid bpf_task_from_vpid "
        "bpf_copy_from_user_str bpf_iter_task_new bpf_iter_task_next bpf_iter_task_destroy bpf_iter_task_vma_new "
        "bpf_iter_task_vma_next bpf_iter_task_vma_destroy bpf_throw bpf_send_signal_task",
    "there are no cgroups here": "bpf_cgroup_acquire bpf_cgroup_release bpf_cgroup_ancestor bpf_cgroup_from_id "
        "bpf_task_under_cgroup bpf_task_get_cgroup1 bpf_iter_css_new bpf_iter_css_next bpf_iter_css_destroy",
    "there are no sets of CPUs here": "bpf_cpumask_create bpf_cpumask_acquire bpf_cpumask_release "
        "bpf_iter_bits_new bpf_iter_bits_next bpf_iter_bits_destroy",
    "there are no timers here": "bpf_wq_init bpf_wq_set_callback_impl bpf_wq_start",
    "there are no spin locks of this kind here": "bpf_res_spin_lock bpf_res_spin_unlock bpf_res_spin_lock_irqsave "
        "bpf_res_spin_unlock_irqrestore",
    "there is no ARENA here": "bpf_arena_alloc_pages bpf_arena_free_pages bpf_arena_reserve_pages",
    "strings that end with a 0 need the kernel's fault handling": "bpf_strcmp bpf_strcasecmp bpf_strchr bpf_strchrnul "
        "bpf_strnchr bpf_strrchr bpf_strlen bpf_strnlen bpf_strspn bpf_strcspn bpf_strstr bpf_strnstr",
}  # fmt: skip
REFUSED: dict[str, str] = {name: why for why, names in _REFUSED.items() for name in names.split()}
"""Why the others aren't there."""

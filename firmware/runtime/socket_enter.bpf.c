/* In front of a socket filter, which sees of the words that tc programs wrote all but `cb` (bpf_prog_run_clear_cb()). */
#include "enter.h"

__no_builtin void socket_enter(void)
{
	clear(SKB->seen.cb, sizeof SKB->seen.cb);
	enter();
}

#include "skb.h"

__no_builtin void helper_set_hash_invalid(void *skb)
{
	clear_hash();
}

/* In front of a tc program. */
#include "enter.h"

__no_builtin void skb_enter(void)
{
	enter();
}

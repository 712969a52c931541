"""The program of the table unit: what is done with the tables that spec/tables.py draws. microcode.py says what its
lines mean. Numbers of places are place + 1 in registers, as they are in the tables; 0 is none."""

from bpfnic.hdl.config import NicConfig
from bpfnic.hdl.maps.microcode import Assembler, Condition
from bpfnic.spec import tables
from bpfnic.spec.maps import LRU, PER_CPU, QUEUES, MapType

KEYED = ("LOOKUP", "UPDATE", "INSERT", "DELETE", "READ", "TAKE", "FIRST", "NEXT", "RESUME", "WALK")
QUEUED = ("PUSH", "POP", "PEEK", "RELEASE", "ENQUEUE")
BOTH = ("RESERVE",)
OPERATIONS = (*KEYED, *QUEUED, *BOTH)
"""By the number of their entry. LOOKUP, UPDATE, DELETE, PUSH, RELEASE are programs' calls, INSERT and ENQUEUE the ends
of updates and pushes. READ, TAKE, FIRST, NEXT are the host's LOOKUP, POP, FIRST and NEXT; RESUME goes on with the last
two. WALK is a program's walk."""

TEXT = """
# Where is the key, which the host's registers may still have? And what every operation needs.
begin:      if host call bring
            find
setup:      cpu = CPU
            own = 4 cpu + TABLE
            links = LINKS
            links = links - 4               # links + 4 x: that of place x - 1
            return
bring:      key from host
            key to slot
            repeat bring
            return

# A program's look-up in an LPM_TRIE, or in a map that evicts.
LOOKUP:     find                            # at once, for nobody else brings its key
            call setup
            if lpm goto longest
            await
            decide
            if not found goto finish_nothing
            call use_found
found_at:   v = (PLACE) * STRIDE
show_value: if mine goto show_mine
            finish at v + BASE
show_mine:  v = v + BASE
            t = CPU
            t = (t) * CPU_STRIDE
            finish at v + t
longest:    await
            if not found goto answer_nothing
            v = (PLACE) * STRIDE
            answer at v + BASE
answer_nothing: answer 0
READ:       call begin
            await
            if not found goto enoent
            goto found_at

# What is at place n.
show:       v = (n - 1) * STRIDE
            goto show_value

# A program's update. Where it has a value of its own, the key gets its place at once; otherwise what it copies now
# stands beside the value until INSERT.
UPDATE:     find
            call setup
            await
            call check
            if claims goto claim
            decide
            call take
            goto show_new
RESERVE:    call setup
            call settle
            call take
show_new:   n = new
            goto show
claim:      if found goto claimed
            call take_free
            call clear
            call write_key
            hold
            decide
            goto link
claimed:    decide
            if lru call use_found
            goto found_at

INSERT:     call begin
            await
            new = [own + RESERVATIONS]
            if zero goto einval
            call check
            call write_key
            hold
            decide
            if found goto replace

# `new` under a key that isn't there: in the first empty word of its bucket, or as its fourth.
link:       word = new + TAG
            at = BUCKET
            if lru call make_room
            r = [at]
            if zero goto link_here
            at = at + 4
            r = OTHER
            if zero goto link_here
            at = at + 4
            r = [at]
            if zero goto link_here
            at = at + 4
            r = OTHER
link_here:  [links + 4 new] = r
            [at] = word
            s = [TABLE | 12]
            s = s + 1
            [TABLE | 12] = s
            if lpm call count
            n = new
            if lru call append
            if claims goto show
inserted:   [own + RESERVATIONS] = zero
            finish 0
replace:    n = PLACE
            n = n + 1
            s = [links + 4 n]
            [links + 4 new] = s
            word = new + TAG
            [LINK] = word
            if lru call unlink
            call free
            n = new
            if lru call append
            goto inserted

DELETE:     call begin
            await
            if invalid goto einval
            if not found goto enoent
            hold
            decide
            call remove
            call free
            finish 0
TAKE:       call begin
            await
            if not found goto enoent
            hold
            call remove
            s = [own + RESERVATIONS]
            [own + RESERVATIONS] = n
            if zero goto show
            v = n
            n = s
            call free
            n = v
            goto show

# May this key get a value?
check:      if illegal goto einval
            if invalid goto einval
            if found goto check_old
            if exist goto enoent
            if lru return
            s = [TABLE | 12]
            _ = s - ENTRIES
            if negative return
            if lpm goto enospc
e2big:      refuse E2BIG
check_old:  if not noexist return
            refuse EEXIST
einval:     refuse EINVAL
enoent:     refuse ENOENT
enospc:     refuse ENOSPC
finish_nothing: finish 0

# A free place: new. Its CPU has it until it is used.
take:       new = [own + RESERVATIONS]
            if not zero return
take_free:  r = [TABLE]
            s = OTHER
            t = ENTRIES
            t = t + SPARES
            _ = r - t
            if negative goto take_fresh
            new = s
            if zero goto e2big
            s = [links + 4 new]
            [TABLE | 4] = s
            goto taken
take_fresh: new = r + 1
            [TABLE] = new
taken:      if claims return
            [own + RESERVATIONS] = new
            return

# Place n is used again last.
free:       r = [TABLE | 4]
            [links + 4 n] = zero
            if zero goto free_first
            s = [TABLE | 8]
            [links + 4 s] = n
            goto free_last
free_first: [TABLE | 4] = n
free_last:  [TABLE | 8] = n
            return

# The key that was found goes; n was its place.
remove:     n = PLACE
            n = n + 1
            t = LINK
            s = t - BUCKET
            r = zero
            _ = s - 12
            if negative goto cut
            r = [links + 4 n]
cut:        [t] = r
            s = [TABLE | 12]
            s = s - 1
            [TABLE | 12] = s
            if lpm call uncount
            if lru goto unlink
            return

write_key:  v = (new - 1) * KEY_STRIDE
            v = v + KEYS
write_word: key from slot
            [v + WORD] = key
            repeat write_word
            return

# Zeros for every CPU at place new.
clear:      v = (new - 1) * STRIDE
            v = v + BASE
            t = CPUS
clear_one:  t = t - 1
            if negative return
            s = (t) * CPU_STRIDE
            clear [s + v]
            goto clear_one

# The order of use.
use_found:  n = PLACE
            n = n + 1
            r = [ORDER + 8 n]
            if zero return
            call unlink
append:     s = [ORDER | 4]
            [ORDER + 8 n] = zero
            [ORDER + 8 n | 4] = s
            [ORDER + 8 s] = n
            [ORDER | 4] = n
            return
unlink:     r = [ORDER + 8 n]
            s = OTHER
            [ORDER + 8 s] = r
            [ORDER + 8 r | 4] = s
            return

# A full map that evicts: the key that was used longest ago goes.
make_room:  s = [TABLE | 12]
            _ = s - ENTRIES
            if negative return
            n = [ORDER]
            v = (n - 1) * KEY_STRIDE
            v = v + KEYS
victim:     _ = [v + WORD]
            key to scratch
            repeat victim
            find scratch
            await
            if not found return
            call remove
            goto free

# Which lengths of prefixes there are.
count:      t = LENGTH
            t = 4 t + ORDER
            s = [t + BITMAP]
            s = s + 1
            [t + BITMAP] = s
            _ = s - 1
            if not zero return
            call bit
            s = s + r
            goto write_bits
uncount:    t = LENGTH
            t = 4 t + ORDER
            s = [t + BITMAP]
            s = s - 1
            [t + BITMAP] = s
            if not zero return
            call bit
            s = s - r
write_bits: [t + ORDER] = s
            return
bit:        r = zero + 1
            s = LENGTH_BIT
shift_bit:  s = s - 1
            if negative goto read_bits
            r = r + r
            goto shift_bit
read_bits:  t = LENGTH_WORD
            s = [t + ORDER]
            return

# A walk goes through the buckets' words, and behind the fourth through its chain. `walk` is the link word's address.
FIRST:      walk = TABLE
            walk = walk + HEADER
            goto scan
NEXT:       call begin
            await
            if not found goto FIRST
            walk = LINK
            s = walk - BUCKET
            _ = s - 12
            if negative goto next_word
next_link:  n = PLACE
            n = n + 1
            walk = 4 n + links
at_link:    r = [walk]
            if not zero goto key_found
            walk = BUCKET
            walk = walk + 16
            goto scan
next_word:  walk = walk + 4
            s = walk - BUCKET
            _ = s - 16
            if zero goto scan
            r = [walk]
            if zero goto next_word
            goto key_found
scan:       _ = walk - LINKS
            if not negative goto walk_ends
            if waiting goto pause
RESUME:     r = scan [walk]
            if not zero goto scanned
            r = OTHER
            if zero goto scan_on
            walk = AT
            walk = walk + 4
            goto key_found
scanned:    walk = AT
            goto key_found
scan_on:    walk = AT
            walk = walk + 8
            goto scan
pause:      if not host goto walk_waits
            finish again
key_found:  v = (r - 1) * KEY_STRIDE
            v = v + KEYS
            n = r
            if not host goto hand_out
show_key:   _ = [v + WORD]
            key to host
            repeat all show_key
            goto show
walk_ends:  if host goto enoent
            cursor = zero
            goto walked

# A program's walk, which must not disturb the host's. At t is the key of the last step, and then the next one's.
WALK:       call setup
            hosts = walk
            t = key from slot
            walk = OTHER
            if zero goto FIRST
            if negative goto walk_on
recall:     _ = [t + WORD]
            key to slot
            repeat recall
            find
            await
            s = walk - BUCKET
            if negative goto walk_ends
            _ = s - 12
            if negative goto next_word
            if not found goto lost
            s = LINK
            s = s - BUCKET
            _ = s - 12
            if not negative goto next_link
lost:       s = walk                        # the key was there: does the chain still lead there?
            v = ENTRIES
            walk = BUCKET
            walk = walk + 12
lost_link:  _ = walk - s
            if zero goto at_link
            v = v - 1
            if negative goto walk_ends
            n = place [walk]
            if zero goto chain_again
            walk = 4 n + links
            goto lost_link
chain_again: walk = BUCKET                  # no: what is in it may come twice, but nothing is left out
            walk = walk + 12
            goto at_link
walk_on:    walk = zero - walk
            _ = walk - LINKS
            if negative goto RESUME
            goto walk_ends
walk_waits: cursor = zero - walk
walked:     walk = hosts
            decide
            finish 0
hand_out:   _ = [v + WORD]
            [t + WORD] = key
            repeat hand_out
            cursor = walk
            walk = hosts
            decide
            goto show

# Queues. A place has how many read it in its link, and QUEUED while it waits.
PUSH:       call setup
            call settle
            call check_push
            decide
            call take
            goto show_new
ENQUEUE:    call setup
            call settle
            new = [own + RESERVATIONS]
            if zero goto einval
            call check_push
            decide
            s = [TABLE | 12]
            _ = s - ENTRIES
            if negative goto enqueue
            n = [ORDER]
            call dequeue
            [links + 4 n] = s
            if zero call free
enqueue:    s = zero + QUEUED
            [links + 4 new] = s
            s = [TABLE | 12]
            s = s + 1
            [TABLE | 12] = s
            n = new
            call append
            goto inserted
check_push: if illegal goto einval
            if noexist goto einval
            s = [TABLE | 12]
            _ = s - ENTRIES
            if negative return
            if exist return
            goto e2big
POP:
PEEK:       call setup
            call settle
            decide
            n = [own + RESERVATIONS]
            if zero goto head
            [own + RESERVATIONS] = zero
            call free
head:       n = [ORDER]
            if not stack goto head_known
            n = OTHER
head_known: if zero goto empty
            if pops goto pop
            s = [links + 4 n]
            goto read
pop:        call dequeue
read:       s = s + 1
            [links + 4 n] = s
            t = zero - n
            [own + RESERVATIONS] = t
            goto show
empty:      if host goto enoent
            n = ENTRIES
            n = n + ZEROS
            goto show
dequeue:    call unlink
            s = [TABLE | 12]
            s = s - 1
            [TABLE | 12] = s
            s = [links + 4 n]
            s = s - QUEUED
            return
RELEASE:    call setup
            s = [own + RESERVATIONS]
            if not negative goto enoent
            decide
            call settle
            finish 0
settle:     s = [own + RESERVATIONS]    # a value that this CPU has read is free when nobody else reads it
            if not negative return
            [own + RESERVATIONS] = zero
            n = zero - s
            s = [links + 4 n]
            s = s - 1
            [links + 4 n] = s
            if not zero return
            goto free
"""


def program(config: NicConfig) -> list[int]:
    """The words of TEXT for a NIC, whose first ones lead to OPERATIONS."""
    cpus = config.cores * config.threads
    numbers = {
        "RESERVATIONS": tables.STATE_BYTES,
        "HEADER": tables.header_bytes(cpus),
        "QUEUED": tables.QUEUED,
        "BITMAP": tables.LENGTH_BITS // 8,
        "CPUS": cpus,
        "SPARES": tables.places(0, cpus),
        "ZEROS": tables.places(0, cpus) + 1,
    }
    types = config.map_types
    has = {
        Condition.LRU: LRU,
        Condition.LPM: {MapType.LPM_TRIE},
        Condition.INVALID: {MapType.LPM_TRIE},
        Condition.MINE: PER_CPU,
        Condition.CLAIMS: PER_CPU - {MapType.PERCPU_ARRAY} | {MapType.HASH},
        Condition.STACK: {MapType.STACK},
    }
    entries = (KEYED if types & tables.HASHED else ()) + (QUEUED if types & QUEUES else ()) + BOTH
    assembler = Assembler((condition for condition, some in has.items() if not types & some), numbers)
    return assembler.assemble(TEXT, [name if name in entries else None for name in OPERATIONS])

// What Python calls. cffi reads this file as it is: declarations only, no preprocessor.
// Clocks count from reset and include skipped idle spans; clock 0 in a record means "never".

typedef struct nic nic;

typedef struct {
    uint64_t arrival;      // clock from which the frame may enter
    uint64_t entered;      // clock of its first beat at the ingress
    uint64_t ended;        // clock in which the ingress accepted or refused it
    uint64_t dispatched;   // clock in which its first program began
    uint64_t finished;     // clock in which its last program ended
    uint64_t released;     // clock in which it left the order table
    uint64_t left;         // clock of its first beat at the egress
    uint64_t gone;         // clock of its last beat there
    uint64_t instructions; // retired for it
    uint64_t data_offset;  // of its bytes as they left, in nic_data
    uint32_t data_length;  // in bytes; 0 if it did not leave
    uint32_t sequence;     // its number among the accepted frames of its ingress
    uint32_t verdict;      // low half of r0 of the program that ran last
    uint32_t stopped;      // slot of the instruction at which the core ended it, where it is trapped
    uint8_t ingress;
    uint8_t accepted;      // 0: refused (or not ended yet)
    uint8_t ran;           // a program ran
    uint8_t cpu;           // of the program that ran last
    uint8_t action;        // XDP action as counted
    uint8_t cause;         // why it was aborted: spec.causes.Cause
    uint8_t trapped;       // the core ended the program; verdict means nothing then
    uint8_t queued;        // it went to an egress's queue
    uint8_t egress;        // which
    uint16_t user;         // tuser at that egress
    uint32_t parent;       // of a clone (ingress INTERFACES): index in nic_packets of the packet that it was made of
} nic_packet;

// A program that ran.
typedef struct {
    uint32_t packet; // index in nic_packets
    uint32_t entry;  // first slot
    uint8_t cpu;
    uint8_t program_type; // spec.registers.ENTRY_TYPES
    uint8_t hook;         // spec.programs.Hook
    uint8_t device;       // interface
    uint8_t trapped;      // as of nic_packet
    uint32_t verdict;
} nic_execution;

typedef struct {
    uint64_t value;
    uint32_t execution; // index in nic_executions
} nic_sample;

typedef struct {
    uint64_t clock;  // (clock, bank) is the serial number
    uint32_t packet; // index in nic_packets
    uint8_t cpu;
    uint8_t bank;
    uint8_t emits; // no packet's: a record left the ring of map `packet`, or was passed over there
} nic_shared;

// host/lockstep.py Event says what each field means in each kind of event.
typedef struct {
    uint64_t clock;
    uint64_t value;
    int64_t address;  // -1: none
    uint32_t packet;  // index in nic_packets
    uint32_t pc;      // slot
    uint32_t next_pc;
    uint8_t kind;     // EVENT_*
    uint8_t cpu;
    uint8_t reg;      // NO_REGISTER: none
    uint8_t cause;
} nic_event;

enum { EVENT_RETIRED, EVENT_PENDING, EVENT_RESULT, EVENT_SHARED, EVENT_BEGAN, EVENT_ENDED, EVENT_WRITTEN,
       EVENT_EMITTED, EVENT_CLONED };
enum { NO_REGISTER = 255 };

typedef struct {
    uint64_t clock;     // the last clock
    uint64_t simulated; // clocks that were really simulated
    uint64_t retired;   // instructions
    uint64_t offered;   // frames
    uint64_t ended;     // frames accepted or refused
    uint64_t released;  // frames that left the order table
    uint64_t delivered; // frames that left an egress
} nic_counts;

// Status of nic_run: every offered frame is done, and every record that is whole has left; clocks are up; nothing moved for the watchdog's span; the NIC broke a
// rule of its interfaces (nic_error says which).
enum { NIC_DONE, NIC_MORE, NIC_STUCK, NIC_BROKEN };

nic *nic_open(const char *waves); // waves: path of an FST file, or NULL; NULL if this build has no waves
void nic_close(nic *);
void nic_clock_ns(nic *, uint32_t nanoseconds); // what register CLOCK_NS holds
void nic_watchdog(nic *, uint64_t clocks);
// keep: record nic_event. observed: somebody takes them as they come, so that nic_sample and nic_shared are not needed.
void nic_keep_events(nic *, int keep, int observed);
// percent: chance that a clock is idle; every: each every-th clock is idle, 0 for none
void nic_pace_ingress(nic *, uint32_t interface, uint32_t percent, uint32_t every, uint64_t seed);
void nic_pace_egress(nic *, uint32_t interface, uint32_t percent, uint32_t every, uint64_t seed);

// AXI4-Lite, a clock or more each; traffic goes on. Returns the response, or -1 if none came within 65,536 clocks.
int nic_write(nic *, uint32_t address, uint32_t value);
int nic_read(nic *, uint32_t address, uint32_t *value);

void nic_offer(nic *, uint32_t ingress, uint64_t arrival, uint32_t user, const uint8_t *bytes, uint32_t length);
int nic_run(nic *, uint64_t clocks); // at most that many simulated clocks
const char *nic_error(nic *);

nic_counts nic_count(nic *);
uint64_t nic_packets(nic *, const nic_packet **);
uint64_t nic_data(nic *, const uint8_t **);
uint64_t nic_executions(nic *, const nic_execution **);
uint64_t nic_samples(nic *, const nic_sample **);
uint64_t nic_shared_accesses(nic *, const nic_shared **);
uint64_t nic_events(nic *, const nic_event **);
uint64_t nic_records(nic *, const uint8_t **); // bytes of frames on the host's stream that are records (spec/rings.py)
void nic_forget_events(nic *);
void nic_forget_records(nic *);
void nic_forget(nic *); // drops all records; only after NIC_DONE

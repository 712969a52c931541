// What the NIC does in each clock, read from its ports and written down as harness.h's records, and whether it keeps to
// the rules of its streams and of its trace. ports.h, written with the netlist, names the NIC's ports by number and the
// fields of its trace.

#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "Vnic.h"
#include "verilated.h"

#pragma GCC visibility push(default)
extern "C" {
#include "harness.h"
}
#pragma GCC visibility pop
#include "ports.h"

namespace {

constexpr uint32_t NONE = ~0u;

// Which clocks a side of a stream is idle in.
struct Pace {
    uint32_t percent = 0, every = 0;
    uint64_t count = 0, state = 1;

    bool idle() {
        if (every && ++count % every == 0) return true;
        if (!percent) return false;
        state ^= state << 13, state ^= state >> 7, state ^= state << 17; // Marsaglia's xorshift64
        return (state >> 32) * 100 >> 32 < percent;
    }
};

struct Ingress {
    Pace pace;
    std::deque<uint32_t> waiting; // packets not entered completely
    std::deque<uint32_t> unended; // packets entered, in part at least, and neither accepted nor refused
    std::vector<uint32_t> accepted; // packets by sequence number - base
    uint32_t base = 0;
    uint32_t position = 0; // bytes of waiting.front() that have entered
    bool valid = false, last = false; // of the beat that is offered now
};

struct Egress {
    Pace pace;
    bool ready = false;
    std::deque<uint32_t> queued; // packets in the order in which they must leave
    std::vector<uint8_t> frame; // its first bytes, or a record's, while it leaves
    bool stalled = false, record = false;
    uint64_t data = 0;
    uint32_t rest = 0; // keep, user and last of the stalled beat
};

struct Source {
    uint64_t offset;
    uint32_t length;
    uint8_t user;
};

struct Observer {
    VerilatedContext context;
    Vnic top{&context, ""};
    uint64_t clock = 0; // the last one that was simulated; the first after reset is 1
    uint64_t retired = 0, ended = 0, released = 0, delivered = 0;
    uint64_t last_work = 0;
    bool keep_events = false, observed = false, broken = false;
    std::string error;

    struct { // one AXI4-Lite access
        bool address_taken, data_taken;
        int response = -1;
        uint32_t data;
    } bus;

    Ingress ingress[INTERFACES + 1]; // the last one's packets are clones, which enter from nowhere
    Egress egress[INTERFACES];
    uint32_t running[CORES * THREADS], before[CORES * THREADS]; // now; and last, for it may go on
    uint32_t execution[CORES * THREADS];
    uint32_t at[CORES * THREADS], after[CORES * THREADS]; // slot of what has not retired, or waits for its result; then
    uint32_t granted[BANKS + ENGINE_TRACES]; // the CPU that each bank and unit granted an access last; NONE: the host
    bool unfinished[CORES * THREADS] = {}; // its last instruction waits for its result
    bool sampling[CORES * THREADS] = {};   // which no program can compute
    uint32_t taken = 0; // ingresses whose beat was taken in the clock before
    uint64_t pending_frames = 0; // offered, and neither refused, dropped nor delivered yet

    std::vector<nic_packet> packets;
    std::vector<Source> sources;
    std::vector<uint8_t> bytes_in, bytes_out, records;
    std::vector<nic_execution> executions;
    std::vector<nic_sample> samples;
    std::vector<nic_shared> shared;
    std::vector<nic_event> events;

    Observer() {
        for (uint32_t &packet : running) packet = NONE;
        for (uint32_t &packet : before) packet = NONE;
        for (uint32_t &cpu : granted) cpu = NONE;
    }

    void fail(std::string what) {
        if (!broken) error = "clock " + std::to_string(clock) + ": " + what;
        broken = true;
    }


    void sample_ingress(uint32_t i) {
        Ingress &in = ingress[i];
        if (!in.valid || !ingress_ready(top, i)) return;
        uint32_t index = in.waiting.front();
        if (!in.position) {
            packets[index].entered = clock;
            in.unended.push_back(index);
        }
        in.position += 8;
        if (in.last) {
            in.waiting.pop_front();
            in.position = 0;
        }
        in.valid = false;
        taken |= 1u << i;
        last_work = clock;
    }

    void sample_egress(uint32_t i) {
        Egress &out = egress[i];
        if (!egress_valid(top, i)) {
            if (out.stalled) fail("egress " + std::to_string(i) + " took back a beat");
            out.stalled = false;
            return;
        }
        uint64_t data = egress_data(top, i);
        uint8_t keep = egress_keep(top, i);
        uint16_t user = egress_user(top, i);
        bool last = egress_last(top, i);
        uint32_t rest = keep | user << 8 | uint32_t(last) << 24;
        if (out.stalled && (data != out.data || rest != out.rest))
            fail("egress " + std::to_string(i) + " changed a beat that was not taken");
        out.data = data, out.rest = rest, out.stalled = !out.ready;
        if (!out.ready) return;
        last_work = clock;
        bool record = user >> EVENT_USER_BIT & 1;
        if (record && user != 1u << EVENT_USER_BIT) fail("a record has user bits " + std::to_string(user));
        if (record && i != INTERFACES - 1) fail("egress " + std::to_string(i) + " sent a record");
        if (keep == 0 || (keep & (keep + 1)) || (!last && keep != 0xFF))
            fail("egress " + std::to_string(i) + " sent tkeep " + std::to_string(keep));
        if (!out.frame.empty() && record != out.record)
            fail("egress " + std::to_string(i) + " mixed a record and a packet");
        out.record = record;
        if (record) {
            for (; keep; keep >>= 1, data >>= 8) out.frame.push_back(uint8_t(data));
            if (!last) return;
            records.insert(records.end(), out.frame.begin(), out.frame.end());
            return out.frame.clear();
        }
        if (out.queued.empty()) return fail("egress " + std::to_string(i) + " sent what nothing had released");
        nic_packet &packet = packets[out.queued.front()];
        if (out.frame.empty()) {
            packet.left = clock;
            packet.user = user;
        } else if (user != packet.user) {
            fail("egress " + std::to_string(i) + " changed tuser within a frame");
        }
        for (; keep; keep >>= 1, data >>= 8) out.frame.push_back(uint8_t(data));
        if (last) {
            packet.gone = clock;
            packet.data_offset = bytes_out.size();
            packet.data_length = out.frame.size();
            bytes_out.insert(bytes_out.end(), out.frame.begin(), out.frame.end());
            out.frame.clear();
            out.queued.pop_front();
            pending_frames--;
            delivered++;
        }
    }

    uint32_t accepted(uint32_t i, uint32_t sequence, const char *who) {
        Ingress &in = ingress[i];
        uint32_t place = sequence - in.base;
        if (place < in.accepted.size()) return in.accepted[place];
        fail(std::string(who) + " names packet " + std::to_string(sequence) + " of ingress " + std::to_string(i) +
             ", which was not accepted");
        return NONE;
    }

    void sample_ended(uint32_t i, bool good) {
        Ingress &in = ingress[i];
        if (in.unended.empty()) return fail("ingress " + std::to_string(i) + " ended a frame that had not entered");
        uint32_t index = in.unended.front();
        in.unended.pop_front();
        packets[index].ended = clock;
        packets[index].accepted = good;
        ended++;
        if (good) {
            packets[index].sequence = in.base + uint32_t(in.accepted.size());
            in.accepted.push_back(index);
        } else {
            pending_frames--;
        }
    }

    uint32_t on_thread(uint32_t cpu, const char *who) {
        if (running[cpu] == NONE) fail(std::string(who) + " of CPU " + std::to_string(cpu) + ", which runs no packet");
        return running[cpu];
    }

    void sample_dispatch(uint32_t core) {
        uint32_t cpu = core * THREADS + dispatch_thread(top, core);
        bool resumed = dispatch_resumed(top, core);
        uint32_t index = resumed ? before[cpu]
                                 : accepted(dispatch_ingress(top, core), dispatch_sequence(top, core), "a dispatch");
        if (running[cpu] != NONE) fail("a dispatch to CPU " + std::to_string(cpu) + ", which runs a packet");
        if (resumed && index == NONE) fail("CPU " + std::to_string(cpu) + " goes on with no packet");
        running[cpu] = index;
        if (index == NONE) return;
        nic_packet &packet = packets[index];
        nic_execution ran{};
        ran.packet = index;
        ran.entry = at[cpu] = after[cpu] = dispatch_pc(top, core);
        ran.cpu = cpu;
        ran.program_type = dispatch_program_type(top, core);
        ran.hook = dispatch_hook(top, core);
        ran.device = dispatch_device(top, core);
        execution[cpu] = executions.size();
        executions.push_back(ran);
        if (!packet.ran) packet.dispatched = clock;
        packet.ran = 1;
        packet.cpu = cpu;
        last_work = clock;
        if (keep_events) {
            nic_event &began = event(EVENT_BEGAN, index, cpu);
            began.pc = ran.entry;
            began.value = ran.program_type | ran.hook << 8 | ran.device << 16;
        }
    }

    void sample_finish(uint32_t core) {
        uint32_t cpu = core * THREADS + finish_thread(top, core);
        uint32_t index = on_thread(cpu, "a finish");
        running[cpu] = NONE;
        before[cpu] = index;
        if (index == NONE) return;
        packets[index].finished = clock;
        packets[index].verdict = finish_verdict(top, core);
        packets[index].trapped = finish_cause(top, core) != 0;
        packets[index].stopped = at[cpu];
        executions[execution[cpu]].verdict = packets[index].verdict;
        executions[execution[cpu]].trapped = packets[index].trapped;
        last_work = clock;
        if (keep_events) {
            nic_event &ended = event(EVENT_ENDED, index, cpu);
            ended.value = packets[index].verdict, ended.cause = finish_cause(top, core);
        }
        if (!unfinished[cpu]) return;
        // A helper's call that trapped after all did not retire.
        unfinished[cpu] = false;
        retired--, packets[index].instructions--;
    }

    void sample_clone(uint32_t core) {
        uint32_t cpu = core * THREADS + clone_thread(top, core);
        uint32_t parent = on_thread(cpu, "a clone");
        bool made = clone_made(top, core);
        last_work = clock;
        if (parent == NONE) return;
        if (!observed) samples.push_back({made, execution[cpu]});
        if (!made) return;
        uint32_t index = packets.size();
        Ingress &in = ingress[INTERFACES];
        nic_packet clone{};
        clone.arrival = clone.entered = clone.ended = clock;
        clone.ingress = INTERFACES;
        clone.accepted = 1;
        clone.sequence = in.base + uint32_t(in.accepted.size());
        clone.parent = parent;
        in.accepted.push_back(index);
        packets.push_back(clone);
        sources.push_back({});
        pending_frames++;
        if (keep_events) event(EVENT_CLONED, index, cpu);
    }

    void sample_release() {
        uint32_t i = release_ingress(top, 0);
        uint32_t index = accepted(i, release_sequence(top, 0), "a release");
        if (index == NONE) return;
        nic_packet &packet = packets[index];
        packet.released = clock;
        packet.action = release_action(top, 0);
        packet.cause = release_cause(top, 0);
        packet.queued = release_queued(top, 0);
        packet.egress = release_egress(top, 0);
        released++;
        if (!packet.queued) {
            pending_frames--;
        } else if (packet.egress >= INTERFACES) {
            fail("a release names egress " + std::to_string(packet.egress));
        } else {
            egress[packet.egress].queued.push_back(index);
        }
        last_work = clock;
    }

    void sample_retire(uint32_t core) {
        uint32_t cpu = core * THREADS + retire_thread(top, core);
        uint32_t index = on_thread(cpu, "a retirement");
        retired++;
        last_work = clock;
        if (index == NONE) return;
        packets[index].instructions++;
        unfinished[cpu] = retire_pending(top, core);
        after[cpu] = retire_next_pc(top, core);
        at[cpu] = unfinished[cpu] ? retire_pc(top, core) : after[cpu];
        sampling[cpu] = retire_sampled(top, core) && !observed;
        if (sampling[cpu] && !unfinished[cpu]) samples.push_back({uint64_t(retire_value(top, core)), execution[cpu]});
        if (!keep_events) return;
        nic_event &step = event(unfinished[cpu] ? EVENT_PENDING : EVENT_RETIRED, index, cpu);
        step.pc = retire_pc(top, core), step.next_pc = retire_next_pc(top, core);
        if (retire_write(top, core)) step.reg = retire_register(top, core);
        step.value = retire_value(top, core);
        if (retire_memory(top, core)) step.address = retire_address(top, core);
    }

    nic_event &event(uint8_t kind, uint32_t index, uint32_t cpu) {
        nic_event &happened = events.emplace_back();
        happened.clock = clock, happened.packet = index, happened.cpu = cpu, happened.kind = kind;
        happened.address = -1, happened.reg = NO_REGISTER;
        return happened;
    }

    void sample_shared(uint32_t bank) {
        uint32_t core = shared_requester(top, bank), cpu = core * THREADS + shared_tag(top, bank) % THREADS;
        granted[bank] = core < CORES ? cpu : NONE;
        if (core >= CORES) return; // the host's
        uint32_t index = on_thread(cpu, "a shared access");
        if (!observed) shared.push_back({clock, index, uint8_t(cpu), uint8_t(bank), 0});
        if (keep_events && index != NONE) event(EVENT_SHARED, index, cpu);
    }

    void sample_emit() {
        uint32_t map = emit_index(top, 0);
        if (!observed) shared.push_back({clock, map, 0, 0, 1});
        if (keep_events) event(EVENT_EMITTED, 0, 0).value = map;
    }

    // A store with its grant, an atomic later.
    void sample_written(uint32_t bank, uint32_t write) {
        uint32_t cpu = granted[bank];
        if (cpu == NONE || running[cpu] == NONE) return;
        uint32_t first = __builtin_ctz(write), bytes = __builtin_popcount(write), turned = first % 8 * 8;
        uint64_t data = shared_data(top, bank), value = turned ? data >> turned | data << (64 - turned) : data;
        nic_event &written = event(EVENT_WRITTEN, running[cpu], cpu);
        written.value = bytes < 8 ? value & ((uint64_t(1) << 8 * bytes) - 1) : value;
        written.address = MAP_VALUES + (shared_row(top, bank) * BANKS + bank) * ROW_BYTES + first;
    }

    void sample_result(uint32_t core) {
        uint32_t cpu = core * THREADS + result_thread(top, core);
        uint32_t index = on_thread(cpu, "a result");
        unfinished[cpu] = false;
        at[cpu] = after[cpu];
        if (index == NONE) return;
        if (sampling[cpu]) samples.push_back({uint64_t(result_value(top, core)), execution[cpu]}), sampling[cpu] = false;
        if (!keep_events) return;
        nic_event &result = event(EVENT_RESULT, index, cpu);
        if (result_write(top, core)) result.reg = result_register(top, core);
        result.value = result_value(top, core);
    }

    void sample() {
        for (uint32_t i = 0; i < INTERFACES; i++) sample_ingress(i);
        if (uint32_t accepted = refuse_accepted(top, 0), refused = refuse_refused(top, 0); accepted | refused)
            for (uint32_t i = 0; i < INTERFACES; i++)
                if ((accepted | refused) >> i & 1) sample_ended(i, accepted >> i & 1);
        if (emit_valid(top, 0)) sample_emit();
        for (uint32_t bank = 0; bank < BANKS; bank++) {
            if (shared_valid(top, bank)) sample_shared(bank);
            if (uint32_t write = keep_events ? shared_write(top, bank) : 0; write) sample_written(bank, write);
        }
        for (uint32_t unit = BANKS; unit < BANKS + ENGINE_TRACES; unit++) // of the map engine
            if (shared_valid(top, unit)) sample_shared(unit);
        for (uint32_t core = 0; core < CORES; core++) {
            if (retire_valid(top, core)) sample_retire(core);
            if (result_valid(top, core)) sample_result(core);
            if (clone_valid(top, core)) sample_clone(core);
            if (finish_valid(top, core)) sample_finish(core);
            if (dispatch_valid(top, core)) sample_dispatch(core);
        }
        if (release_valid(top, 0)) sample_release();
        for (uint32_t i = 0; i < INTERFACES; i++) sample_egress(i);
        sample_bus();
    }

    void sample_bus() {
        if (top.s_axil_awvalid && top.s_axil_awready) bus.address_taken = true;
        if (top.s_axil_arvalid && top.s_axil_arready) bus.address_taken = true;
        if (top.s_axil_wvalid && top.s_axil_wready) bus.data_taken = true;
        if (top.s_axil_bvalid && top.s_axil_bready) bus.response = top.s_axil_bresp;
        if (top.s_axil_rvalid && top.s_axil_rready) bus.response = top.s_axil_rresp, bus.data = top.s_axil_rdata;
    }
};

} // namespace

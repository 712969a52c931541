// Drives the NIC's streams and registers clock by clock.
//
// The NIC stands in a shell whose registers hold its inputs (sim/rtl/ports.py): what is set before a rising edge is what
// the NIC sees in the clock that begins with it. So one evaluation settles a clock, and a clock is: set inputs, rising
// edge, read outputs (observer.h).

#include <memory>

#include "observer.h"
#ifdef WAVES
#include "verilated_fst_c.h"
#endif

namespace {

// Idle spans shorter than this are simulated: the NIC clears stacks and registers behind finished packets meanwhile, and
// is at rest afterwards, so that a skipped clock would have changed nothing but the time.
constexpr uint64_t REST = 1024;
constexpr uint64_t REGISTER_PATIENCE = 65536;

} // namespace

struct nic : Observer {
#ifdef WAVES
    std::unique_ptr<VerilatedFstC> waves;
#endif
    uint64_t stride = 1; // from the last clock to the next one
    uint64_t simulated = 0; // clocks
    uint64_t watchdog = 1 << 20;
    uint64_t time = 0; // ns, for waves
    uint32_t clock_ns = 8;

    // ------------------------------------------------------------ inputs of the clock that begins

    void present(uint32_t i) {
        Ingress &in = ingress[i];
        if (in.valid || in.waiting.empty()) return; // an offered beat stays until it is taken
        uint32_t index = in.waiting.front();
        if ((!in.position && packets[index].arrival > clock) || in.pace.idle()) return;
        const Source &source = sources[index];
        uint32_t left = source.length - in.position, size = left < 8 ? left : 8;
        const uint8_t *bytes = bytes_in.data() + source.offset + in.position;
        uint64_t data = 0;
        for (uint32_t b = 0; b < size; b++) data |= uint64_t(bytes[b]) << 8 * b;
        in.valid = true;
        in.last = left <= 8;
        set_ingress(top, i, true, data, (1u << size) - 1, in.last, in.last ? source.user : source.user & ~1u);
    }

    void drive() {
        for (uint32_t i = 0; i < INTERFACES; i++) {
            present(i);
            if (taken >> i & 1 && !ingress[i].valid) set_ingress(top, i, false, 0, 0, false, 0);
            Egress &out = egress[i];
            bool ready = !out.pace.idle();
            if (ready != out.ready) set_egress_ready(top, i, out.ready = ready);
        }
        taken = 0;
    }

    // ------------------------------------------------------------ clocks

    void edges() {
        top.clk = 1;
        top.eval();
        dump(time);
        top.clk = 0;
        top.eval();
        dump(time + clock_ns / 2);
    }

    void dump(uint64_t at) {
#ifdef WAVES
        if (waves) waves->dump(at);
#endif
    }

    void step() {
        clock += stride;
        time += stride * clock_ns;
        stride = 1;
        drive();
        edges();
        simulated++;
        sample();
    }

    uint64_t next_arrival() const {
        uint64_t next = ~uint64_t(0);
        for (const Ingress &in : ingress)
            if (!in.waiting.empty() && packets[in.waiting.front()].arrival < next)
                next = packets[in.waiting.front()].arrival;
        return next;
    }

    // Nothing of any frame is in the NIC.
    bool empty() const {
        uint64_t waiting = 0;
        for (const Ingress &in : ingress) {
            if (in.position || in.valid) return false;
            waiting += in.waiting.size();
        }
        return waiting == pending_frames;
    }

    // One clock with a long time behind it, then clock `next`.
    void skip(uint64_t next) {
        top.advance = (next - clock - 2) * clock_ns;
        step();
        top.advance = 0;
        stride = next - clock;
        step();
        last_work = clock; // nobody had anything to do until now
    }

    int run(uint64_t clocks) {
        uint64_t end = clocks > ~simulated ? ~uint64_t(0) : simulated + clocks;
        while (!broken) {
            bool emits = emit_waiting(top, 0);
            if (!pending_frames && !emits) return NIC_DONE;
            if (simulated >= end) return NIC_MORE;
            if (clock - last_work >= REST) {
                if (empty() && !emits) {
                    uint64_t next = next_arrival();
                    if (next > clock + 2) {
                        skip(next);
                        continue;
                    }
                } else if (clock - last_work > watchdog) {
                    error = "clock " + std::to_string(clock) + ": nothing has moved for " + std::to_string(watchdog) +
                            " clocks, with " + std::to_string(pending_frames) + " frames not done";
                    return NIC_STUCK;
                }
            }
            step();
        }
        return NIC_BROKEN;
    }

    void begin() {
        top.clk = 0;
        top.eval();
    }

    // ------------------------------------------------------------ registers

    int write(uint32_t address, uint32_t value) {
        bus = {false, false, -1, 0};
        top.s_axil_awvalid = top.s_axil_wvalid = top.s_axil_bready = 1;
        top.s_axil_awaddr = address;
        top.s_axil_wdata = value;
        top.s_axil_wstrb = 15;
        for (uint64_t i = 0; i < REGISTER_PATIENCE && bus.response < 0; i++) {
            step();
            top.s_axil_awvalid = !bus.address_taken;
            top.s_axil_wvalid = !bus.data_taken;
        }
        top.s_axil_awvalid = top.s_axil_wvalid = top.s_axil_bready = 0;
        return bus.response;
    }

    int read(uint32_t address) {
        bus = {false, false, -1, 0};
        top.s_axil_arvalid = top.s_axil_rready = 1;
        top.s_axil_araddr = address;
        for (uint64_t i = 0; i < REGISTER_PATIENCE && bus.response < 0; i++) {
            step();
            top.s_axil_arvalid = !bus.address_taken;
        }
        top.s_axil_arvalid = top.s_axil_rready = 0;
        return bus.response;
    }

    void offer(uint32_t i, uint64_t arrival, uint32_t user, const uint8_t *bytes, uint32_t length) {
        nic_packet packet{};
        packet.arrival = arrival;
        packet.ingress = i;
        ingress[i].waiting.push_back(uint32_t(packets.size()));
        packets.push_back(packet);
        sources.push_back({bytes_in.size(), length, uint8_t(user)});
        bytes_in.insert(bytes_in.end(), bytes, bytes + length);
        pending_frames++;
        last_work = clock; // however long registers were written before
    }

    void forget() {
        for (Ingress &in : ingress) {
            in.base += uint32_t(in.accepted.size());
            in.accepted.clear();
        }
        packets.clear(), sources.clear(), bytes_in.clear(), bytes_out.clear();
        for (uint32_t &packet : before) packet = NONE;
        executions.clear(), samples.clear(), shared.clear(), events.clear(), records.clear();
    }
};

extern "C" {

nic *nic_open(const char *path) {
#ifndef WAVES
    if (path) return nullptr;
#endif
    nic *n = new nic;
#ifdef WAVES
    if (path) {
        n->context.traceEverOn(true);
        n->waves = std::make_unique<VerilatedFstC>();
        n->top.trace(n->waves.get(), 99);
        n->waves->set_time_unit("1ns");
        n->waves->set_time_resolution("1ns");
        n->waves->open(path);
    }
#endif
    n->begin();
    return n;
}

void nic_close(nic *n) {
#ifdef WAVES
    if (n->waves) n->waves->close();
#endif
    n->top.final();
    delete n;
}

void nic_clock_ns(nic *n, uint32_t nanoseconds) { n->clock_ns = nanoseconds; }
void nic_watchdog(nic *n, uint64_t clocks) { n->watchdog = clocks; }
void nic_keep_events(nic *n, int keep, int observed) { n->keep_events = keep, n->observed = observed; }

void nic_pace_ingress(nic *n, uint32_t interface, uint32_t percent, uint32_t every, uint64_t seed) {
    n->ingress[interface].pace = Pace{percent, every, 0, seed | 1};
}

void nic_pace_egress(nic *n, uint32_t interface, uint32_t percent, uint32_t every, uint64_t seed) {
    n->egress[interface].pace = Pace{percent, every, 0, seed | 1};
}

int nic_write(nic *n, uint32_t address, uint32_t value) { return n->write(address, value); }

int nic_read(nic *n, uint32_t address, uint32_t *value) {
    int response = n->read(address);
    *value = n->bus.data;
    return response;
}

void nic_offer(nic *n, uint32_t ingress, uint64_t arrival, uint32_t user, const uint8_t *bytes, uint32_t length) {
    n->offer(ingress, arrival, user, bytes, length);
}

int nic_run(nic *n, uint64_t clocks) { return n->run(clocks); }
const char *nic_error(nic *n) { return n->error.c_str(); }

nic_counts nic_count(nic *n) {
    return {n->clock, n->simulated, n->retired, n->packets.size(), n->ended, n->released, n->delivered};
}

uint64_t nic_packets(nic *n, const nic_packet **first) { return *first = n->packets.data(), n->packets.size(); }
uint64_t nic_data(nic *n, const uint8_t **first) { return *first = n->bytes_out.data(), n->bytes_out.size(); }
uint64_t nic_executions(nic *n, const nic_execution **first) {
    return *first = n->executions.data(), n->executions.size();
}
uint64_t nic_samples(nic *n, const nic_sample **first) { return *first = n->samples.data(), n->samples.size(); }
uint64_t nic_shared_accesses(nic *n, const nic_shared **first) { return *first = n->shared.data(), n->shared.size(); }
uint64_t nic_events(nic *n, const nic_event **first) { return *first = n->events.data(), n->events.size(); }
uint64_t nic_records(nic *n, const uint8_t **first) { return *first = n->records.data(), n->records.size(); }
void nic_forget_events(nic *n) { n->events.clear(); }
void nic_forget_records(nic *n) { n->records.clear(); }
void nic_forget(nic *n) { n->forget(); }

} // extern "C"

// A card with a UART at its pins and frames at its MACs, clock by clock.

#include <cstdint>
#include <cstring>
#include <deque>
#include <vector>

#include "Vcard.h"
#include "ports.h"

namespace {

struct Uart { // the other end of the line: 8N1
    std::deque<uint8_t> out;
    std::vector<uint8_t> in;
    uint32_t sending = 0, bits = 0, phase = 0; // phase: clocks of the bit that are left
    uint32_t heard = 0, sampled = 0, wait = 0;
    bool busy = false;

    bool drive() {
        if (!phase && !bits && !out.empty()) {
            sending = 0x200 | out.front() << 1;
            out.pop_front();
            bits = 10;
        }
        if (!bits) return true;
        bool level = sending & 1;
        if (++phase == CLOCKS_PER_BIT) phase = 0, sending >>= 1, bits--;
        return level;
    }

    void sample(bool level) {
        if (!busy) {
            if (!level) busy = true, sampled = 0, heard = 0, wait = CLOCKS_PER_BIT + CLOCKS_PER_BIT / 2 - 1;
        } else if (wait) {
            wait--;
        } else if (sampled < 8) {
            heard |= uint32_t(level) << sampled++;
            wait = CLOCKS_PER_BIT - 1;
        } else {
            if (level) in.push_back(uint8_t(heard));
            busy = false;
        }
    }
};

struct Frame {
    std::vector<uint8_t> bytes;
    uint32_t user;
};

struct Port {
    std::deque<Frame> in, out; // to the card, from it
    size_t position = 0;
    Frame leaving;
};

} // namespace

struct card {
    Vcard top;
    Uart uart;
    Port ports[PORTS];
    std::vector<uint8_t> taken;
    uint64_t clocks = 0;
    bool stalls = false; // MACs take nothing

    void step() {
        top.uart_rx = uart.drive();
        for (uint32_t i = 0; i < PORTS; i++) {
            Port &port = ports[i];
            uint8_t bytes[8] = {};
            size_t size = 0;
            bool last = false;
            if (!port.in.empty()) {
                Frame &frame = port.in.front();
                size = frame.bytes.size() - port.position < 8 ? frame.bytes.size() - port.position : 8;
                memcpy(bytes, frame.bytes.data() + port.position, size);
                last = port.position + size == frame.bytes.size();
                uint64_t data;
                memcpy(&data, bytes, 8);
                offer(top, i, true, data, (1u << size) - 1, last, last ? frame.user : 0);
            } else {
                offer(top, i, false, 0, 0, false, 0);
            }
            set_ready(top, i, !stalls);
        }
        top.eval();
        for (uint32_t i = 0; i < PORTS; i++) {
            Port &port = ports[i];
            if (!port.in.empty() && accepted(top, i)) {
                port.position += 8;
                if (port.position >= port.in.front().bytes.size()) port.in.pop_front(), port.position = 0;
            }
            if (leaves(top, i) && !stalls) {
                uint64_t data = leaving_data(top, i);
                for (uint32_t b = 0; b < 8 && leaving_keep(top, i) >> b & 1; b++)
                    port.leaving.bytes.push_back(uint8_t(data >> 8 * b));
                if (leaving_last(top, i)) port.out.push_back(std::move(port.leaving)), port.leaving = Frame();
            }
        }
        uart.sample(top.uart_tx);
        top.clk = 1;
        top.eval();
        top.clk = 0;
        clocks++;
    }
};

extern "C" {

card *card_open() {
    card *c = new card;
    c->top.uart_rx = 1;
    return c;
}

void card_close(card *c) { delete c; }
void card_run(card *c, uint64_t count) {
    while (count--) c->step();
}
uint64_t card_clocks(card *c) { return c->clocks; }
void card_stall(card *c, int stalls) { c->stalls = stalls; }
void card_hear(card *c, const uint8_t *bytes, uint32_t length) {
    c->uart.out.insert(c->uart.out.end(), bytes, bytes + length);
}

// What it has said: `at` stays until the next call.
uint32_t card_say(card *c, const uint8_t **at) {
    c->taken.swap(c->uart.in);
    c->uart.in.clear();
    *at = c->taken.data();
    return uint32_t(c->taken.size());
}

int card_idle(card *c) { return c->uart.out.empty() && !c->uart.bits && !c->uart.busy; }

void card_offer(card *c, uint32_t port, const uint8_t *bytes, uint32_t length, uint32_t user) {
    c->ports[port].in.push_back({std::vector<uint8_t>(bytes, bytes + length), user});
}

uint32_t card_waiting(card *c, uint32_t port) { return uint32_t(c->ports[port].in.size()); }

// The next frame that left by a port, 0 bytes if none has.
uint32_t card_take(card *c, uint32_t port, const uint8_t **at) {
    std::deque<Frame> &out = c->ports[port].out;
    if (out.empty()) return 0;
    c->taken = std::move(out.front().bytes);
    out.pop_front();
    *at = c->taken.data();
    return uint32_t(c->taken.size());
}

} // extern "C"

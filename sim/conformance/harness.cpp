// Drives machine.py: loads program and memory, starts the thread, and waits for its end.

#include <cstdint>
#include <cstring>
#include <memory>

#include "Vmachine.h"
#include "verilated.h"

#pragma GCC visibility push(default)
extern "C" {
#include "harness.h"
}
#pragma GCC visibility pop

namespace {

constexpr uint64_t PATIENCE = 65536; // clocks without a retirement: longer than any instruction takes

// Bytes [at, at + 8) of what has `length` bytes, the rest 0.
uint64_t word_at(const uint8_t *bytes, uint32_t length, uint32_t at) {
    uint64_t word = 0;
    std::memcpy(&word, bytes + at, length - at < 8 ? length - at : 8);
    return word;
}

} // namespace

extern "C" machine_end machine_run(const uint8_t *program, uint32_t slots, const uint8_t *memory, uint32_t length,
                                   uint32_t data_end, uint32_t budget) {
    VerilatedContext context;
    Vmachine machine(&context, "");
    auto clock = [&] {
        machine.clk = 1, machine.eval();
        machine.clk = 0, machine.eval();
    };
    machine.rst = 1;
    for (int i = 0; i < 4; i++) clock();
    machine.rst = 0;
    machine.budget = budget;
    machine.data_end = data_end;

    machine.load = 1;
    for (uint32_t slot = 0; slot < slots; slot++) {
        machine.slot = slot;
        machine.instruction = word_at(program, 8 * slots, 8 * slot);
        clock();
    }
    machine.load = 0;
    machine.mask = 0xFF;
    for (uint32_t at = 0; at < length; at += 8) {
        machine.word = (data_end - length + at) / 8;
        machine.data = word_at(memory, length, at);
        clock();
    }
    machine.mask = 0;
    clock(), clock();

    machine.start = 1;
    machine.eval();
    for (uint64_t idle = 0; !machine.finished && idle < PATIENCE; idle = machine.retired ? 0 : idle + 1) {
        clock();
        machine.start = 0;
        machine.eval();
    }
    machine_end end{machine.r0, machine.cause, machine.pc, 0};
    if (!machine.finished) end.status = 1;
    else if (!end.cause && uint32_t(end.r0) != machine.verdict) end.status = 2;
    machine.final();
    return end;
}

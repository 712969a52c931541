// What stands around the core in its tests: program store, windows, map memory, engine and service, as models that
// answer after random delays. Reads a scenario from standard input, writes what happened to standard output, a line an
// event; both are described in bench.py, which also generates layouts.h.

#include <verilated.h>

#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <vector>

#include "Vcore.h"
#include "layouts.h"

struct Field {
    unsigned offset, width;
};
#define FIELD(name, offset, width) constexpr Field name{offset, width};
LAYOUTS(FIELD)

using Word = unsigned long long;

template <class T> bool bit(const T& signal, unsigned i) { return signal >> i & 1; }
template <std::size_t n> bool bit(const VlWide<n>& signal, unsigned i) { return signal[i / 32] >> i % 32 & 1; }
template <class T> Word get(const T& signal, Field f) {
    Word value = 0;
    for (unsigned i = 0; i < f.width; i++) value |= Word(bit(signal, f.offset + i)) << i;
    return value;
}
template <class T> void put(T& signal, Field f, Word value) {
    T mask = T(f.width >= 8 * sizeof(T) ? ~Word(0) : (Word(1) << f.width) - 1) << f.offset;
    signal = (signal & ~mask) | (T(value) << f.offset & mask);
}
template <std::size_t n> void put(VlWide<n>& signal, Field f, Word value) {
    for (unsigned i = 0, at = f.offset; i < f.width; i++, at++) {
        signal[at / 32] &= ~(1u << at % 32);
        signal[at / 32] |= unsigned(value >> i & 1) << at % 32;
    }
}

using Bytes = std::vector<unsigned char>;
Bytes from_hex(const std::string& text) {
    Bytes bytes;
    if (text != "-")
        for (std::size_t i = 0; i + 1 < text.size(); i += 2) bytes.push_back(std::stoi(text.substr(i, 2), nullptr, 16));
    return bytes;
}
void print_hex(const unsigned char* bytes, std::size_t count) {
    for (std::size_t i = 0; i < count; i++) std::printf("%02x", bytes[i]);
    std::printf("\n");
}
Word load(const Bytes& memory, unsigned at, unsigned size) {
    Word value = 0;
    for (unsigned i = 0; i < size; i++) value |= Word(at + i < memory.size() ? memory[at + i] : 0) << 8 * i;
    return value;
}
void store(Bytes& memory, unsigned at, unsigned size, Word value) {
    for (unsigned i = 0; i < size && at + i < memory.size(); i++) memory[at + i] = value >> 8 * i;
}

struct Packet {
    unsigned entry;
    Bytes frame;
};
struct Descriptor {
    Word type = 0, base = 0, entries = 0, stride = 0, value_size = 0, cpu_stride = 0, lock = 0;
};
struct Thread {
    int packet = -1;
    Bytes stack, buffer;
    unsigned meta = 0, data = 0, end = 0;
    Word flags = 0;
    unsigned words = 0;
    Word handle = 0;
};

struct Answer {
    unsigned thread = 0;
    Word value = 0;
    bool trap = false, copy = false, insert = false, locked = false;
    unsigned size = 0, lock = 0;
};

// A queue whose entries ripen after a random delay. Without `shuffle` they leave in order.
template <class T> struct Delay {
    struct Entry {
        Word ripe;
        T value;
    };
    std::deque<Entry> entries;
    bool shuffle;
    explicit Delay(bool shuffle) : shuffle(shuffle) {}
    int ready(Word now) {
        for (std::size_t i = 0; i < (shuffle ? entries.size() : std::min<std::size_t>(1, entries.size())); i++)
            if (entries[i].ripe <= now) return i;
        return -1;
    }
};

int main() {
    std::vector<Word> program(PROGRAM_SLOTS);
    Bytes map(MAP_BYTES);
    std::vector<Descriptor> descriptors(MAPS);
    std::deque<std::pair<int, Packet>> packets;
    std::map<unsigned, Answer> script;
    unsigned seed = 1, least = 1, most = 1, stall = 0, threads = THREADS, cpu_base = 0;
    Word budget = ~0u;
    int count = 0;
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream in(line);
        std::string what, text;
        in >> what;
        if (what == "program") {
            unsigned slot;
            in >> slot >> text;
            Bytes code = from_hex(text);
            for (unsigned i = 0; i < code.size() / 8; i++) program.at(slot + i) = load(code, 8 * i, 8);
        } else if (what == "map") {
            unsigned at;
            in >> at >> text;
            Bytes bytes = from_hex(text);
            std::copy(bytes.begin(), bytes.end(), map.begin() + at);
        } else if (what == "descriptor") {
            unsigned i;
            in >> i;
            Descriptor& d = descriptors.at(i);
            in >> d.type >> d.base >> d.entries >> d.stride >> d.value_size >> d.cpu_stride >> d.lock;
        } else if (what == "answer") {
            unsigned call;
            in >> call;
            Answer& a = script[call];
            in >> a.trap >> a.copy >> a.insert >> a.size >> a.value >> a.lock >> a.locked;
        } else if (what == "packet") {
            Packet packet;
            in >> packet.entry >> text;
            packet.frame = from_hex(text);
            packets.push_back({count++, packet});
        } else if (what == "set") {
            in >> seed >> threads >> least >> most >> stall >> budget >> cpu_base;
        }
    }

    auto core = std::make_unique<Vcore>();
    std::mt19937 random(seed);
    auto chance = [&](unsigned percent) { return random() % 100 < percent; };
    auto delay = [&] { return least + random() % (most - least + 1); };
    std::vector<Thread> state(THREADS);

    core->clk = 0;
    core->rst = 1;
    for (int i = 0; i < 4; i++) core->clk ^= 1, core->eval();
    core->rst = 0;
    core->budget = budget;
    core->cpu_base = cpu_base;

    struct Access {
        unsigned tag, operation, address, bytes, shift;
        Word data, compare;
    };
    Delay<Access> accesses(true);
    Delay<Answer> map_answers(true), engine_answers(true), service_answers(true);
    std::deque<Word> fetched(2), read(3);
    Word now = 0, retired = 0, last_finish = 0, first_start = 0;
    unsigned running = 0;

    auto context = [&](Thread& t, unsigned at, unsigned size) {
        Bytes bytes(64);
        store(bytes, 0, 4, PACKET + t.data);
        store(bytes, 4, 4, PACKET + t.end);
        store(bytes, 8, 4, PACKET + t.meta);
        store(bytes, 12, 4, 7);
        return load(bytes, at, size);
    };
    auto is_redirect_map = [](unsigned type) {
        return type == TYPE_DEVMAP || type == TYPE_CPUMAP || type == TYPE_XSKMAP;
    };
    auto engine = [&](unsigned thread, unsigned call, Word handle, Word flags, Word key) {
        Answer answer{thread, 0};
        Word key_end = handle >> HANDLE_KEY_BIT & 63;
        handle -= key_end << HANDLE_KEY_BIT;
        Word index = (handle - MAP_HANDLES) / 16;
        if (key_end != 3 || handle < MAP_HANDLES || handle % 16 || index >= MAPS || !descriptors[index].type ||
            (descriptors[index].type == TYPE_PROG_ARRAY) != (call == CALL_TAIL) ||
            is_redirect_map(descriptors[index].type) != (call == CALL_REDIRECT)) {
            answer.trap = true;
            return answer;
        }
        Descriptor& d = descriptors[index];
        key &= 0xffffffff;
        Word value = MAP_VALUES + d.base + d.stride * key + d.cpu_stride * (cpu_base + thread);
        if (call == CALL_LOOKUP)
            answer.value = key < d.entries ? value : 0;
        else if (call == CALL_CHECK)
            answer.value = 0;
        else if (call == CALL_DELETE)
            answer.value = -22;
        else if (call == CALL_TAIL)
            answer.value = key < d.entries ? value : 0, answer.copy = key < d.entries;
        else if (call == CALL_REDIRECT) {
            answer.copy = key < d.entries;
            answer.value = answer.copy ? value : d.type == TYPE_DEVMAP ? 0 : Word(-2);
        }
        else if ((flags & ~Word(4)) > 2)
            answer.value = -22;
        else if (key >= d.entries)
            answer.value = -7;
        else if (flags & 1)
            answer.value = -17;
        else if (flags & 4 && !d.lock)
            answer.value = -22;
        else {
            answer.value = value, answer.copy = true, answer.size = d.value_size;
            answer.lock = d.lock, answer.locked = flags & 4;
        }
        return answer;
    };
    auto serve = [&](unsigned thread, unsigned service, Word a, Word b) {
        Thread& t = state[thread];
        int delta = int(b);
        if (service == SERVICE_REDIRECT) return b ? Word(0) : Word(4);
        if (service == SERVICE_REDIRECT_MAP) {
            if (b & ~(a & 2 ? Word(3) : Word(19))) return Word(0);
            return a & 1 ? Word(4) : b & 3;
        }
        if (service == SERVICE_HEAD) {
            int data = int(t.data) + delta;
            if (data < 40 + int(t.data - t.meta) || data > int(t.end) - 14) return Word(-22);
            Bytes moved(t.buffer.begin() + t.meta, t.buffer.begin() + t.data);
            t.meta += delta, t.data = data;
            std::copy(moved.begin(), moved.end(), t.buffer.begin() + t.meta);
            return Word(0);
        }
        int end = int(t.end) + delta;
        if (end > int(BUFFER_BYTES) - 320 || end < int(t.data) + 14) return Word(-22);
        for (int i = t.end; i < end; i++) t.buffer[i] = 0;
        t.end = end;
        return Word(0);
    };
    auto perform = [&](const Access& a) {
        Word old = load(map, a.address, a.bytes), mask = a.bytes == 8 ? ~Word(0) : (Word(1) << 8 * a.bytes) - 1;
        Word operand = a.data & mask, value = old;
        if (a.operation == OP_LOAD) return (old << 8 * a.shift) | a.data;
        if (a.operation == OP_STORE) value = operand;
        if (a.operation == OP_ADD) value = old + operand;
        if (a.operation == OP_OR) value = old | operand;
        if (a.operation == OP_AND) value = old & operand;
        if (a.operation == OP_XOR) value = old ^ operand;
        if (a.operation == OP_XCHG) value = operand;
        if (a.operation == OP_CMPXCHG && old == (a.compare & mask)) value = operand;
        store(map, a.address, a.bytes, value);
        return old;
    };

    while (!packets.empty() || running) {
        if (now - last_finish > 2000000) {
            std::printf("H %llu\n", now);
            break;
        }
        // Inputs of this clock. Banks: a ripe access is done, in whatever order they ripen.
        if (int i = accesses.ready(now); i >= 0) {
            Access a = accesses.entries[i].value;
            accesses.entries.erase(accesses.entries.begin() + i);
            std::printf("M %d %u %u %u\n", state[a.tag].packet, a.operation, a.address, a.bytes);
            map_answers.entries.push_back({now + delay(), {a.tag, perform(a)}});
        }
        core->fetch_instruction = program[fetched.front()];
        const uint64_t following = program[(fetched.front() + 1) % PROGRAM_SLOTS];
        core->fetch_next_imm = following >> 32;
        core->fetch_next_reserved = uint32_t(following) != 0;
        fetched.pop_front();
        core->local_read_data = read.front();
        read.pop_front();
        core->time = 1000 + 8 * now;
        core->random = random();
        int m = map_answers.ready(now), e = engine_answers.ready(now), s = service_answers.ready(now);
        core->map_answer_valid = m >= 0;
        if (m >= 0) {
            put(core->map_answer_payload, MAP_ANSWER_TAG, map_answers.entries[m].value.thread);
            put(core->map_answer_payload, MAP_ANSWER_DATA, map_answers.entries[m].value.value);
        }
        core->engine_answer_valid = e >= 0;
        if (e >= 0) {
            Answer& a = engine_answers.entries[e].value;
            put(core->engine_answer_payload, ENGINE_ANSWER_THREAD, a.thread);
            put(core->engine_answer_payload, ENGINE_ANSWER_TRAP, a.trap);
            put(core->engine_answer_payload, ENGINE_ANSWER_COPY, a.copy);
            put(core->engine_answer_payload, ENGINE_ANSWER_INSERT, a.insert);
            put(core->engine_answer_payload, ENGINE_ANSWER_LOCKED, a.locked);
            put(core->engine_answer_payload, ENGINE_ANSWER_LOCK, a.lock);
            put(core->engine_answer_payload, ENGINE_ANSWER_SIZE, a.size);
            put(core->engine_answer_payload, ENGINE_ANSWER_VALUE, a.value);
        }
        core->answer_valid = s >= 0;
        if (s >= 0) {
            put(core->answer_payload, ANSWER_THREAD, service_answers.entries[s].value.thread);
            put(core->answer_payload, ANSWER_VALUE, service_answers.entries[s].value.value);
        }
        core->map_request_ready = !chance(stall);
        core->engine_word_ready = !chance(stall);
        core->service_ready = !chance(stall);
        core->finish_ready = !chance(stall);
        core->start_valid = 0;
        unsigned free = 0;
        while (free < threads && state[free].packet >= 0) free++;
        if (!packets.empty() && free < threads && !chance(stall)) {
            Thread& t = state[free];
            auto [number, packet] = packets.front();
            t.packet = number;
            t.stack.assign(STACK_WINDOW_BYTES, 0);
            t.buffer.assign(BUFFER_BYTES, 0);
            t.meta = t.data = HEADROOM;
            t.end = HEADROOM + packet.frame.size();
            std::copy(packet.frame.begin(), packet.frame.end(), t.buffer.begin() + HEADROOM);
            core->start_valid = 1;
            put(core->start_payload, START_THREAD, free);
            put(core->start_payload, START_PC, packet.entry);
        }
        core->eval();
        Thread& b = state[core->bounds_thread];
        put(core->bounds_bounds, BOUNDS_BUFFER, core->bounds_thread);
        put(core->bounds_bounds, BOUNDS_META, b.meta);
        put(core->bounds_bounds, BOUNDS_DATA, b.data);
        put(core->bounds_bounds, BOUNDS_END, b.end);
        core->eval();

        // What happens in it.
        if (core->start_valid && core->start_ready) {
            std::printf("S %llu %d %u\n", now, packets.front().first, free);
            if (packets.front().first == 0) first_start = now;
            packets.pop_front();
            running++;
        }
        fetched.push_back(core->fetch_slot);
        Word data = random();
        if (core->local_enable) {
            Thread& t = state[core->local_thread];
            unsigned at = core->local_offset, size = 1u << core->local_size;
            Bytes* memory = core->local_region == REGION_STACK ? &t.stack : &t.buffer;
            if (core->local_region == REGION_PACKET && core->local_buffer != core->local_thread) std::printf("X\n");
            if (core->local_region == REGION_CONTEXT)
                data = context(t, at, size);
            else if (core->local_write)
                store(*memory, at, size, core->local_write_data);
            else
                data = load(*memory, at, size);
        }
        read.push_back(data);
        if (core->map_request_valid && core->map_request_ready) {
            auto& p = core->map_request_payload;
            accesses.entries.push_back({now + delay(),
                                        {unsigned(get(p, MAP_REQUEST_TAG)), unsigned(get(p, MAP_REQUEST_OPERATION)),
                                         unsigned(get(p, MAP_REQUEST_ADDRESS)), unsigned(get(p, MAP_REQUEST_BYTES)),
                                         unsigned(get(p, MAP_REQUEST_SHIFT)), get(p, MAP_REQUEST_DATA),
                                         get(p, MAP_REQUEST_COMPARE)}});
        }
        if (core->engine_word_valid && core->engine_word_ready) {
            auto& p = core->engine_word_payload;
            const unsigned thread = get(p, ENGINE_WORD_THREAD), call = get(p, ENGINE_WORD_CALL);
            const bool flags = get(p, ENGINE_WORD_FLAGS), last = get(p, ENGINE_WORD_LAST);
            const Word handle = get(p, ENGINE_WORD_HANDLE), data = get(p, ENGINE_WORD_DATA);
            if (auto scripted = script.find(call); scripted != script.end()) {
                std::printf("W %d %u %d %d %llu %llu\n", state[thread].packet, call, flags, last, handle, data);
                if (last) {
                    Answer answer = scripted->second;
                    answer.thread = thread;
                    engine_answers.entries.push_back({now + delay(), answer});
                }
            } else if (flags) {
                state[thread].flags = data;
            } else {
                if (call != CALL_CHECK && get(p, ENGINE_WORD_NUMBER) != state[thread].words) std::printf("X\n");
                if (state[thread].words && handle != state[thread].handle) std::printf("X\n");
                state[thread].handle = handle;
                state[thread].words = last ? 0 : state[thread].words + 1;
                if (last)
                    engine_answers.entries.push_back(
                        {now + delay(), engine(thread, call, handle, state[thread].flags, data)});
            }
        }
        if (core->service_valid && core->service_ready) {
            auto& p = core->service_payload;
            unsigned thread = get(p, SERVICE_REQUEST_THREAD);
            service_answers.entries.push_back(
                {now + delay(), {thread, serve(thread, get(p, SERVICE_REQUEST_SERVICE), get(p, SERVICE_REQUEST_A),
                                             get(p, SERVICE_REQUEST_B))}});
        }
        if (m >= 0 && core->map_answer_ready) map_answers.entries.erase(map_answers.entries.begin() + m);
        if (e >= 0 && core->engine_answer_ready) engine_answers.entries.erase(engine_answers.entries.begin() + e);
        if (s >= 0 && core->answer_ready) service_answers.entries.erase(service_answers.entries.begin() + s);
        if (auto& p = core->retire_trace; get(p, RETIRE_VALID))
            std::printf("R %d %llu %llu %llu %llu %llu %llu %llu %llu %llu\n", state[get(p, RETIRE_THREAD)].packet,
                        get(p, RETIRE_PC), get(p, RETIRE_NEXT_PC), get(p, RETIRE_PENDING), get(p, RETIRE_WRITE),
                        get(p, RETIRE_REGISTER), get(p, RETIRE_VALUE), get(p, RETIRE_SAMPLED), get(p, RETIRE_MEMORY),
                        get(p, RETIRE_ADDRESS));
        if (auto& p = core->result_trace; get(p, RESULT_VALID))
            std::printf("V %d %llu %llu %llu\n", state[get(p, RESULT_THREAD)].packet, get(p, RESULT_WRITE),
                        get(p, RESULT_REGISTER), get(p, RESULT_VALUE));
        retired += core->retired;
        if (core->finish_valid && core->finish_ready) {
            auto& p = core->finish_payload;
            Thread& t = state[get(p, FINISH_THREAD)];
            std::printf("F %llu %d %llu %llu ", now, t.packet, get(p, FINISH_VERDICT), get(p, FINISH_CAUSE));
            if (t.packet < 0) std::printf("twice");
            print_hex(&t.buffer[t.data], t.end - t.data);
            t.packet = -1;
            running--;
            last_finish = now;
        }
        core->clk = 1;
        core->eval();
        core->clk = 0;
        now++;
    }
    std::printf("E %llu %llu\nD ", now - first_start, retired);
    print_hex(map.data(), map.size());
    core->final();
}

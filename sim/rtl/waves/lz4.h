// Stands in for liblz4's header where it isn't installed, with the two functions that Verilator's FST writer calls: a
// greedy compressor of the LZ4 block format. Its output is read by every LZ4 decoder.
#pragma once
#include <cstdint>
#include <cstring>

inline int LZ4_compressBound(int size) { return size + size / 255 + 16; }

namespace lz4 {

inline uint32_t word(const uint8_t *at) {
    uint32_t value;
    std::memcpy(&value, at, 4);
    return value;
}

// The rest of a length that did not fit into its 4 bits.
inline uint8_t *put_length(uint8_t *out, uint32_t rest) {
    for (; rest >= 255; rest -= 255) *out++ = 255;
    *out++ = uint8_t(rest);
    return out;
}

// Literals, then (match_length > 0) a copy of that many bytes from `offset` bytes back.
inline uint8_t *put_sequence(uint8_t *out, const uint8_t *literals, uint32_t count, uint32_t offset, uint32_t match) {
    uint8_t *token = out++;
    uint32_t extra = match ? match - 4 : 0;
    *token = uint8_t((count < 15 ? count : 15) << 4 | (extra < 15 ? extra : 15));
    if (count >= 15) out = put_length(out, count - 15);
    std::memcpy(out, literals, count);
    out += count;
    if (match) {
        *out++ = uint8_t(offset), *out++ = uint8_t(offset >> 8);
        if (extra >= 15) out = put_length(out, extra - 15);
    }
    return out;
}

} // namespace lz4

// Returns the compressed size; `room` must be at least LZ4_compressBound(size), else 0.
inline int LZ4_compress_default(const char *source, char *target, int size, int room) {
    if (room < LZ4_compressBound(size)) return 0;
    const uint8_t *begin = reinterpret_cast<const uint8_t *>(source), *end = begin + size;
    const uint8_t *last_match = end - 12, *literals = begin, *at = begin; // the format ends with literals
    uint8_t *out = reinterpret_cast<uint8_t *>(target);
    uint32_t seen[4096] = {}; // position + 1 of a word with this hash
    while (size > 12 && at < last_match) {
        uint32_t &slot = seen[lz4::word(at) * 2654435761u >> 20];
        const uint8_t *before = slot ? begin + slot - 1 : nullptr;
        slot = uint32_t(at - begin) + 1;
        if (!before || at - before > 65535 || lz4::word(before) != lz4::word(at)) {
            at++;
            continue;
        }
        uint32_t match = 4;
        while (at + match < end - 5 && before[match] == at[match]) match++;
        out = lz4::put_sequence(out, literals, uint32_t(at - literals), uint32_t(at - before), match);
        at += match;
        literals = at;
    }
    out = lz4::put_sequence(out, literals, uint32_t(end - literals), 0, 0);
    return int(out - reinterpret_cast<uint8_t *>(target));
}

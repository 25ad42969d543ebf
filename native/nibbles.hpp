// The 32 levels of a block in the layout of the 32-wide formats: the low halves of two levels in a byte, high bits apart.
#pragma once

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Levels below 16 of `count` blocks. Each block begins `stride` bytes after the one before.
inline void store_nibbles(const Lanes* levels, int count, int stride, uint8_t* to) {
    Lanes pairs[16];
    for (int e = 0; e < 16; ++e) pairs[e] = levels[e] + levels[e + 16] * Lanes(16.0f);
    uint8_t bytes[kLanes][16];
    store_levels<16>(pairs, bytes);
    for (int b = 0; b < count; ++b) std::memcpy(to + b * stride, bytes[b], 16);
}

// The same for levels below 32: stores the fifth bits, then clears them.
inline void store_fifth_bits(Lanes* levels, int count, int stride, uint8_t* to) {
    Lanes eights[4];
    for (int k = 0; k < 4; ++k) {
        eights[k] = 0.0f;
        for (int e = 0; e < 8; ++e) {
            Lanes& level = levels[8 * k + e];
            const Mask set = level >= Lanes(16.0f);
            eights[k] += select(set, float(1 << e), 0.0f);
            level = select(set, level - Lanes(16.0f), level);
        }
    }
    uint8_t bytes[kLanes][4];
    store_levels<4>(eights, bytes);
    for (int b = 0; b < count; ++b) std::memcpy(to + b * stride, bytes[b], 4);
}

}  // namespace thriftbit::THRIFTBIT_ISA

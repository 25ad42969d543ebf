// Thirty-two levels of a block as the 32-wide formats lay them out: low halves of two levels to a byte, high bits apart.
#pragma once

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

inline void store_nibbles(const uint8_t* levels, uint8_t* to) {
    for (int e = 0; e < 16; ++e) to[e] = (levels[e] & 15) | (levels[e + 16] & 15) << 4;
}

inline void store_fifth_bits(const uint8_t* levels, uint8_t* to) {
    for (int byte = 0; byte < 4; ++byte) {
        uint8_t bits = 0;
        for (int e = 0; e < 8; ++e) bits |= (levels[8 * byte + e] >> 4 & 1) << e;
        to[byte] = bits;
    }
}

}  // namespace thriftbit::THRIFTBIT_ISA

// How Q4_K and Q5_K pack eight 6-bit scales and eight 6-bit mins into twelve bytes.
#pragma once

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

inline void store_scales_and_mins(const Lanes& scales, const Lanes& mins, int super_block, uint8_t* to) {
    for (int j = 0; j < 4; ++j) {
        const int low = super_block * 8 + j, high = low + 4;
        const auto scale = uint8_t(scales[low]), min = uint8_t(mins[low]);
        const auto high_scale = uint8_t(scales[high]), high_min = uint8_t(mins[high]);
        to[j] = uint8_t(scale | (high_scale >> 4) << 6);
        to[4 + j] = uint8_t(min | (high_min >> 4) << 6);
        to[8 + j] = uint8_t((high_scale & 15) | (high_min & 15) << 4);
    }
}

}  // namespace thriftbit::THRIFTBIT_ISA

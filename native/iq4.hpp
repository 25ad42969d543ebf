// The sixteen uneven values of the IQ4 formats.
#pragma once

#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ4Values {
    static constexpr int starts = 36;
    static constexpr float value[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

    static Lanes nearest_to(const Lanes& y) {
        Lanes nearest(value[0]);
        for (int k = 1; k < 16; ++k) {
            const Mask above = y > Lanes((value[k - 1] + value[k]) / 2);
            nearest = select(above, Lanes(value[k]), nearest);
        }
        return nearest;
    }

    // All that llama.cpp tries and more.
    static constexpr double below[] = {0.75, 0.8, 0.85, 0.9, 1.1, 1.2, 1.3, 1.4, 1.5};
    static constexpr double start(int k) {
        if (k < 15) return k - 7 - 127;
        if (k < 24) return -127 * below[k - 15];
        return 113 * (0.75 + (k - 24) * 0.6 / 11);
    }

    // Where a value stands in the list.
    static uint8_t level(uint8_t value_byte) {
        static constexpr auto levels = [] {
            std::array<uint8_t, 256> table{};
            for (int k = 0; k < 16; ++k) table[uint8_t(int8_t(value[k]))] = uint8_t(k);
            return table;
        }();
        return levels[value_byte];
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

// The sixteen uneven values of the IQ4 formats.
#pragma once

#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ4Values {
    static constexpr int starts = 24;
    static constexpr float value[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

    static Lanes nearest_to(const Lanes& y) {
        Lanes nearest(value[0]);
        for (int k = 1; k < 16; ++k) {
            const Mask above = y > Lanes((value[k - 1] + value[k]) / 2);
            nearest = select(above, Lanes(value[k]), nearest);
        }
        return nearest;
    }

    static constexpr double start(int k) {
        const double place = 0.75 + k % 12 * 0.6 / 11;
        return k < 12 ? -127 * place : 113 * place;
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

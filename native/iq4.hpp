// The sixteen uneven values of the IQ4 formats.
#pragma once

#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ4Values {
    static constexpr int starts = 28;
    static constexpr float value[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

    static Lanes nearest_to(const Lanes& y) {
        Lanes nearest(value[0]);
        for (int k = 1; k < 16; ++k) {
            const Mask above = y >= Lanes((value[k - 1] + value[k]) / 2);
            nearest = select(above, Lanes(value[k]), nearest);
        }
        return nearest;
    }

    static constexpr double start(int k) {
        constexpr int half = starts / 2;
        return k < half ? -127 * (0.75 + k * 0.7 / (half - 1)) : 113 * (0.75 + (k - half) * 0.6 / (half - 1));
    }

    // The position of a value in the list.
    static uint8_t level(uint8_t value_byte) {
        static constexpr auto levels = [] {
            std::array<uint8_t, 256> table{};
            for (int k = 0; k < 16; ++k) table[uint8_t(int8_t(value[k]))] = uint8_t(k);
            return table;
        }();
        return levels[value_byte];
    }
};

// Where llama.cpp's search puts the weight of largest magnitude at the start.
struct IQ4Starts : IQ4Values {
    static constexpr int count = 16;
    static constexpr bool value_first = true;
    static Lanes factor(int k, const Lanes& extreme) {
        return k == 0 ? Lanes(1.0f) / (extreme / Lanes(127.0f)) : Lanes(float(k - 8 - 127)) / extreme;
    }
};

template <class Weights>
Lanes search_as_llama_cpp(const Lanes* x, const Weights& w, const Lanes& mean_square) {
    if constexpr (std::is_same_v<Weights, Ones>)
        return llama_cpp::search_symmetric<32, IQ4Starts>(x, llama_cpp::squares<32>(x));
    else
        return llama_cpp::search_symmetric<32, IQ4Starts>(
            x, llama_cpp::weights<32>(x, w, mean_square * Lanes(2.0f)));
}

}  // namespace thriftbit::THRIFTBIT_ISA

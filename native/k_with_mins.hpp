// What Q4_K and Q5_K share: the search, and the bytes before the levels. The fast version of the search in tests/conformance/specification/k_with_mins.py.
#pragma once

#include <type_traits>

#include "affine.hpp"
#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// top: the largest level. PlainSteps: the steps of llama.cpp's search without importance.
template <int top, class PlainSteps, class Weights>
inline auto search_k_with_mins(const Lanes* x, const Weights& w, const Lanes& mean_squares) {
    constexpr int elements = 32;
    const auto theirs = [&] {
        if constexpr (std::is_same_v<Weights, Ones>)
            return llama_cpp::plain<elements, top, 8, 63, PlainSteps>(x, llama_cpp::raised_sizes<elements>(x));
        else
            return llama_cpp::with_importance<elements, top, 8, 63>(
                x, llama_cpp::weights<elements>(x, w, mean_squares * Lanes(2.0f)));
    };
    return search_super_affine<elements, top, 8, 63>(x, w, 1.0 / 64, theirs());
}

// Eight 6-bit scales and eight 6-bit mins in twelve bytes.
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

// d, d_min, scales and mins of one super-block: sixteen bytes.
template <class Found>
inline void store_head(const Found& found, int super_block, uint8_t* to) {
    store_half(found.d[super_block], to);
    store_half(found.d_min[super_block], to + 2);
    store_scales_and_mins(found.scales, found.mins, super_block, to + 4);
}

}  // namespace thriftbit::THRIFTBIT_ISA

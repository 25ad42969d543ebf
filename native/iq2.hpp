// What the IQ2 formats share: the numbers 8, 25 and 43 in groups of eight, and the scales 1/8, 3/8, … 31/8 times d.
#pragma once

#include "codebook_blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ2 {
    static constexpr int block_size = 256, group = 8, levels = 3;
    static constexpr float unit = 0.125f, largest_number = 2 * levels - 1;
    static constexpr auto mean_squares = MeanSquares::kOfBlocksAlways;
    static constexpr bool takes_zero_importance = true;

    static constexpr float value(int level) { return level == 0 ? 8.0f : level == 1 ? 25.0f : 43.0f; }
};

// The search of IQ2_XS and IQ2_S: which number the highest weight is at step k, and which groups are searched again.
struct IQ2Steps {
    static constexpr int steps = 19;
    static constexpr auto second_look = SecondLook::kThoseThatAreNone;
    static constexpr float factor(int k) { return IQ2::largest_number + float(k - 9) * 0.1f; }
};

template <class Format>
TheirSubBlocks<Format> search_from_highest(const Lanes* x, const Lanes* w, float negligible) {
    Lanes highest = x[0];
    for (int e = 1; e < Format::elements; ++e) highest = maximum(highest, x[e]);
    const Mask usable = highest >= Lanes(negligible);
    highest = select(usable, highest, 1.0f);
    return search_neighbours<Format>(Format::neighbours(), x, w, highest, highest / Lanes(Format::largest_number), usable);
}

}  // namespace thriftbit::THRIFTBIT_ISA

// What the searches share: the fast version of tests/conformance/specification/search.py.
#pragma once

#include <array>
#include <limits>

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Importance of one for every weight, used where none is given. The compiler removes the multiplication.
struct Ones {
    Lanes operator[](int) const { return 1.0f; }
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int kPositions = kLanes;

template <int elements, class Value>
inline Lanes total(Value value) {
    Lanes sum = value(0);
    for (int e = 1; e < elements; ++e) sum += value(e);
    return sum;
}

// One number for each super-block in the lanes.
template <int sub_blocks>
struct PerSuperBlock {
    static constexpr int count = kLanes / sub_blocks;
    float value[count];
    float& operator[](int b) { return value[b]; }
    float operator[](int b) const { return value[b]; }
};

template <int sub_blocks>
inline PerSuperBlock<sub_blocks> gathered(const Lanes& lanes) {
    PerSuperBlock<sub_blocks> sums;
    for (int b = 0; b < sums.count; ++b) {
        sums[b] = lanes[b * sub_blocks];
        for (int j = 1; j < sub_blocks; ++j) sums[b] += lanes[b * sub_blocks + j];
    }
    return sums;
}

template <int sub_blocks>
inline Lanes spread(const PerSuperBlock<sub_blocks>& scalars) {
    Lanes lanes;
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = scalars[lane / sub_blocks];
    return lanes;
}

template <int sub_blocks>
inline float largest_of(const Lanes& lanes, int b) {
    float largest = lanes[b * sub_blocks];
    for (int j = 1; j < sub_blocks; ++j)
        if (lanes[b * sub_blocks + j] > largest) largest = lanes[b * sub_blocks + j];
    return largest;
}

// The element of largest magnitude, with its sign; of equals, the first.
template <int elements>
inline Lanes signed_extreme(const Lanes* x) {
    Lanes extreme = x[0];
    for (int e = 1; e < elements; ++e) extreme = select(magnitude(x[e]) > magnitude(extreme), x[e], extreme);
    return extreme;
}

// The same among the sub-blocks of super-block b.
template <int sub_blocks>
inline float signed_extreme_of(const Lanes& lanes, int b) {
    const Lanes sizes = magnitude(lanes);
    int extreme = b * sub_blocks;
    for (int j = extreme + 1; j < (b + 1) * sub_blocks; ++j)
        if (sizes[j] > sizes[extreme]) extreme = j;
    return lanes[extreme];
}

// The factors by which the largest scale is multiplied to give the candidates for d.
template <int largest>
inline Lanes shrinking(double spacing) {
    Lanes lanes;
    for (int k = 0; k < kPositions; ++k) lanes[k] = float(1 / (largest * (1 + spacing * (1 - k))));
    return lanes;
}

}  // namespace thriftbit::THRIFTBIT_ISA

// The 4-bit floating-point numbers of MXFP4 and NVFP4, doubled: the fast version of src/thriftbit/formats/e2m1.py.
#pragma once

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA::e2m1 {

constexpr float kLargest = 12;

// The nearest of 0, 1, 2, 3, 4, 6, 8, 12, for y >= 0. Adding 1.5 * 2^23 steps leaves no bits for less than a step.
inline Lanes nearest_size(const Lanes& y) {
    const Lanes clipped = minimum(y, Lanes(kLargest));
    const Lanes shift = select(clipped < Lanes(4.0f), Lanes(12582912.0f),
                               select(clipped < Lanes(8.0f), Lanes(2 * 12582912.0f), Lanes(4 * 12582912.0f)));
    return (clipped + shift) - shift;
}

// The stored bits, as a whole number: which of the sizes, and 8 where x is negative.
inline Lanes nibble(const Lanes& size, const Lanes& x) {
    const Lanes place = select(size < Lanes(4.0f), size,
                               select(size < Lanes(8.0f), size * Lanes(0.5f) + Lanes(2.0f), size * Lanes(0.25f) + Lanes(4.0f)));
    return select(x < Lanes(0.0f), place + Lanes(8.0f), place);
}

}  // namespace thriftbit::THRIFTBIT_ISA::e2m1

// From rows in memory to blocks in lanes, and registration: what every kernel file ends with.
#pragma once

#include <algorithm>

#include "kernel.hpp"
#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Format: block_size, block_bytes, elements (of a block or sub-block), and
// encode(x, w, count, out): `count` blocks from Lanes x[elements], w[elements] to out.
template <class Format>
void encode(const float* x, const float* importance, int64_t width, int64_t first, int64_t last, uint8_t* out) {
    constexpr int elements = Format::elements, sub_blocks = Format::block_size / elements;
    constexpr int group = kLanes / sub_blocks;
    for (int64_t block = first; block < last; block += group) {
        const int count = int(std::min<int64_t>(group, last - block));
        uint8_t* to = out + block * Format::block_bytes;
        Lanes columns[elements];
        const float* sources[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t b = block + std::min(lane / sub_blocks, count - 1);  // spare lanes repeat the last block
            sources[lane] = x + b * Format::block_size + lane % sub_blocks * elements;
        }
        load_columns<elements>(sources, columns);
        if (!importance) {
            Format::encode(columns, Ones(), count, to);
            continue;
        }
        for (auto& source : sources) source = importance + (source - x) % width;
        Lanes weights[elements];
        load_columns<elements>(sources, weights);
        const Mask any = total<elements>([&](int e) { return weights[e]; }) > Lanes(0.0f);
        for (auto& w : weights) w = select(any, w, 1.0f);
        Format::encode(columns, weights, count, to);
    }
}

template <class Format>
struct Register {
    explicit Register(const char* name) {
        kernels_for(THRIFTBIT_SET).formats[name] = {Format::block_size, Format::block_bytes, encode<Format>};
    }
};

inline void store_half(float value, uint8_t* to) {
    const uint16_t bits = half_bits(value + 0.0f);  // no negative zero
    to[0] = uint8_t(bits);
    to[1] = uint8_t(bits >> 8);
}

}  // namespace thriftbit::THRIFTBIT_ISA

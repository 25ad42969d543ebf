// From rows in memory to blocks in lanes, and the registration at the end of every kernel file.
#pragma once

#include <algorithm>

#include "kernel.hpp"
#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

template <class Format>
constexpr MeanSquares wanted_mean_squares = [] {
    if constexpr (requires { Format::mean_squares; })
        return Format::mean_squares;
    else
        return MeanSquares::kNone;
}();

// Format: block_size, block_bytes, elements (of a block or sub-block), and
// encode(x, w, count, out): `count` blocks from Lanes x[elements], w[elements] to out. A format that has mean_squares
// takes them after w. Where the importance of a whole block or sub-block is zero, w is one, unless the format
// takes_zero_importance.
template <class Format>
void encode(const Rows& rows, int64_t first, int64_t last, uint8_t* out) {
    constexpr int elements = Format::elements, sub_blocks = Format::block_size / elements;
    constexpr int group = kLanes / sub_blocks;
    for (int64_t block = first; block < last; block += group) {
        const int count = int(std::min<int64_t>(group, last - block));
        uint8_t* to = out + block * Format::block_bytes;
        Lanes columns[elements];
        const float* sources[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
            const int64_t b = block + std::min(lane / sub_blocks, count - 1);  // spare lanes repeat the last block
            sources[lane] = rows.x + b * Format::block_size + lane % sub_blocks * elements;
        }
        load_columns<elements>(sources, columns);
        const auto encode_with = [&](const auto& weights) {
            if constexpr (wanted_mean_squares<Format> == MeanSquares::kNone) {
                Format::encode(columns, weights, count, to);
            } else {
                Lanes mean_squares = 0.0f;
                if (rows.mean_squares) {
                    constexpr bool of_rows = wanted_mean_squares<Format> == MeanSquares::kOfRows;
                    const int64_t length = of_rows ? rows.width : Format::block_size;
                    for (int lane = 0; lane < kLanes; ++lane)
                        mean_squares[lane] = rows.mean_squares[(sources[lane] - rows.x) / length];
                }
                Format::encode(columns, weights, mean_squares, count, to);
            }
        };
        if (!rows.importance) {
            encode_with(Ones());
            continue;
        }
        const float* importance[kLanes];
        for (int lane = 0; lane < kLanes; ++lane)
            importance[lane] = rows.importance + (sources[lane] - rows.x) % rows.width;
        Lanes weights[elements];
        load_columns<elements>(importance, weights);
        if constexpr (!requires { Format::takes_zero_importance; }) {
            const Mask any = total<elements>([&](int e) { return weights[e]; }) > Lanes(0.0f);
            for (auto& w : weights) w = select(any, w, 1.0f);
        }
        encode_with(weights);
    }
}

template <class Format>
struct Register {
    explicit Register(const char* name) {
        kernels_for(THRIFTBIT_SET).formats[name] = {Format::block_size, Format::block_bytes,
                                                    wanted_mean_squares<Format>, encode<Format>};
    }
};

inline void store_half(float value, uint8_t* to) {
    const uint16_t bits = half_bits(value + 0.0f);  // no negative zero
    to[0] = uint8_t(bits);
    to[1] = uint8_t(bits >> 8);
}

}  // namespace thriftbit::THRIFTBIT_ISA

// F32, F16 and BF16, which have no blocks and no search; and the check for weights that cannot be stored.
#include <cstring>

#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

static void encode_f32(const Rows& rows, int64_t first, int64_t last, uint8_t* out) {
    std::memcpy(out + first * 4, rows.x + first, size_t(last - first) * 4);
}

static void encode_f16(const Rows& rows, int64_t first, int64_t last, uint8_t* out) {
    auto* halves = reinterpret_cast<uint16_t*>(out);
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) halves[i] = half_bits(rows.x[i]);
}

static void encode_bf16(const Rows& rows, int64_t first, int64_t last, uint8_t* out) {
    auto* upper = reinterpret_cast<uint16_t*>(out);
    const auto* bits = reinterpret_cast<const uint32_t*>(rows.x);
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) upper[i] = uint16_t((bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16);
}

static uint32_t largest_bits(const float* x, int64_t count) {
    const auto* bits = reinterpret_cast<const int32_t*>(x);
    int32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, bits[i] & 0x7fffffff);
    return uint32_t(largest);
}

static void mean_squares(const float* x, int64_t length, int64_t count, float* out) {
    for (int64_t first = 0; first < count; first += kLanes) {  // a lane is a stretch
        const int lanes = int(std::min<int64_t>(kLanes, count - first));
        const float* sources[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) sources[lane] = x + (first + std::min(lane, lanes - 1)) * length;
        Lanes sum = 0.0f;
        for (int64_t i = 0; i < length; ++i) {
            Lanes part;
            for (int lane = 0; lane < kLanes; ++lane) part[lane] = sources[lane][i];
            sum += part * part;
        }
        for (int lane = 0; lane < lanes; ++lane) out[first + lane] = sum[lane] / float(length);
    }
}

static const bool registered = [] {
    kernels_for(THRIFTBIT_SET).largest_bits = largest_bits;
    kernels_for(THRIFTBIT_SET).mean_squares = mean_squares;
    auto& kernels = kernels_for(THRIFTBIT_SET).formats;
    kernels["F32"] = {1, 4, MeanSquares::kNone, encode_f32};
    kernels["F16"] = {1, 2, MeanSquares::kNone, encode_f16};
    kernels["BF16"] = {1, 2, MeanSquares::kNone, encode_bf16};
    return true;
}();

}  // namespace thriftbit::THRIFTBIT_ISA

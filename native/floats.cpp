// F32, F16 and BF16: no blocks, no search. And the look for weights that cannot be stored.
#include <cstring>

#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

static void encode_f32(const float* x, const float*, int64_t, int64_t first, int64_t last, uint8_t* out) {
    std::memcpy(out + first * 4, x + first, size_t(last - first) * 4);
}

static void encode_f16(const float* x, const float*, int64_t, int64_t first, int64_t last, uint8_t* out) {
    auto* halves = reinterpret_cast<uint16_t*>(out);
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) halves[i] = half_bits(x[i]);
}

static void encode_bf16(const float* x, const float*, int64_t, int64_t first, int64_t last, uint8_t* out) {
    auto* upper = reinterpret_cast<uint16_t*>(out);
    const auto* bits = reinterpret_cast<const uint32_t*>(x);
#pragma GCC ivdep
    for (int64_t i = first; i < last; ++i) upper[i] = uint16_t((bits[i] + 0x7fff + (bits[i] >> 16 & 1)) >> 16);
}

static uint32_t largest_bits(const float* x, int64_t count) {
    const auto* bits = reinterpret_cast<const int32_t*>(x);
    int32_t largest = 0;
    for (int64_t i = 0; i < count; ++i) largest = std::max(largest, bits[i] & 0x7fffffff);
    return uint32_t(largest);
}

static const bool registered = [] {
    kernels_for(THRIFTBIT_SET).largest_bits = largest_bits;
    auto& kernels = kernels_for(THRIFTBIT_SET).formats;
    kernels["F32"] = {1, 4, encode_f32};
    kernels["F16"] = {1, 2, encode_f16};
    kernels["BF16"] = {1, 2, encode_bf16};
    return true;
}();

}  // namespace thriftbit::THRIFTBIT_ISA

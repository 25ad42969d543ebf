#include "blocks.hpp"
#include "e2m1.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct NVFP4 {
    static constexpr int block_size = 64, block_bytes = 36, elements = 16, sub_blocks = 4;
    static constexpr int kLastScale = 126;
    static constexpr int kFirstTried = -3, kLastTried = 6;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        Lanes largest = 0.0f;
        for (int e = 0; e < elements; ++e) largest = maximum(largest, magnitude(x[e]));
        const Lanes wanted = largest / Lanes(6.0f);
        int first[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) first[lane] = byte_near(wanted[lane]);
        Lanes best = 0.0f, best_s = 0.0f, least = kInfinity;
        for (int step = kFirstTried; step <= kLastTried; ++step) {
            Lanes byte, s;
            for (int lane = 0; lane < kLanes; ++lane) {
                const int candidate = std::clamp(first[lane] + step, 0, kLastScale);
                byte[lane] = float(candidate);
                s[lane] = kScales[candidate];
            }
            const Lanes inverse_s = inverse(s);
            const Lanes left = total<elements>([&](int e) {
                const Lanes size = magnitude(x[e]), residual = size - s * e2m1::nearest_size(size * inverse_s);
                return w[e] * residual * residual;
            });
            const Mask better = left < least;
            least = select(better, left, least);
            best = select(better, byte, best);
            best_s = select(better, s, best_s);
        }

        const Lanes inverse_s = inverse(best_s);
        Lanes pairs[elements / 2];
        const auto nibble = [&](int e) { return e2m1::nibble(e2m1::nearest_size(magnitude(x[e]) * inverse_s), x[e]); };
        for (int e = 0; e < elements / 2; ++e) pairs[e] = nibble(e) + nibble(e + elements / 2) * Lanes(16.0f);
        uint8_t bytes[kLanes][elements / 2];
        store_levels<elements / 2>(pairs, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes)
            for (int j = 0; j < sub_blocks; ++j) {
                out[j] = uint8_t(best[b * sub_blocks + j]);
                std::memcpy(out + sub_blocks + j * elements / 2, bytes[b * sub_blocks + j], elements / 2);
            }
    }

    // The byte of the E4M3 number nearest to s >= 0. Below 2^-6 they are multiples of 2^-9.
    static int byte_near(float s) {
        if (s < 0x1p-6f) return int(s * 512.0f + 0.5f);
        int32_t bits;
        std::memcpy(&bits, &s, 4);
        return std::min(int((bits + (1 << 19)) >> 20) - (120 << 3), kLastScale);
    }

    // Half of the E4M3 numbers, by their bytes.
    static constexpr std::array<float, kLastScale + 1> kScales = [] {
        std::array<float, kLastScale + 1> scales{};
        for (int byte = 0; byte <= kLastScale; ++byte) {
            scales[byte] = float(byte < 8 ? byte : 8 + byte % 8) / 1024.0f;
            for (int doubled = 1; doubled < byte / 8; ++doubled) scales[byte] *= 2;
        }
        return scales;
    }();
};

static const Register<NVFP4> registered("NVFP4");

}  // namespace thriftbit::THRIFTBIT_ISA

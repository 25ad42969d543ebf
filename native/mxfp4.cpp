#include "blocks.hpp"
#include "e2m1.hpp"
#include "nibbles.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct MXFP4 {
    static constexpr int block_size = 32, block_bytes = 17, elements = 32;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        Lanes largest = 0.0f;
        for (int e = 0; e < elements; ++e) largest = maximum(largest, magnitude(x[e]));
        Lanes best_s = 0.0f, least = kInfinity;
        uint8_t exponents[kLanes];
        for (int step = -1; step <= 1; ++step) {
            // s is half of the block's scale, a power of two: 12 s is the largest weight, give or take a factor of two
            Lanes s;
            for (int lane = 0; lane < kLanes; ++lane) s[lane] = power_of_two(exponent(largest[lane]) + step - 1);
            const Lanes inverse_s = inverse(s);
            const Lanes left = total<elements>([&](int e) {
                const Lanes residual = magnitude(x[e]) - s * e2m1::nearest_size(magnitude(x[e]) * inverse_s);
                return w[e] * residual * residual;
            });
            const Mask better = left < least;
            least = select(better, left, least);
            best_s = select(better, s, best_s);
        }
        for (int lane = 0; lane < kLanes; ++lane) exponents[lane] = uint8_t(biased_exponent(best_s[lane]) + 1);

        const Lanes inverse_s = inverse(best_s);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e)
            levels[e] = e2m1::nibble(e2m1::nearest_size(magnitude(x[e]) * inverse_s), x[e]);
        store_nibbles(levels, count, block_bytes, out + 1);
        for (int b = 0; b < count; ++b) out[b * block_bytes] = exponents[b];
    }

    static int biased_exponent(float size) {
        uint32_t bits;
        std::memcpy(&bits, &size, 4);
        return int(bits >> 23 & 255);
    }
    // The biased exponent of the scale that puts the largest weight between 4 and 8. The largest value is 6.
    static int exponent(float largest) { return std::max(biased_exponent(largest) - 2, 32); }
    static float power_of_two(int biased) {
        const uint32_t bits = uint32_t(biased) << 23;
        float size;
        std::memcpy(&size, &bits, 4);
        return size;
    }
};

static const Register<MXFP4> registered("MXFP4");

}  // namespace thriftbit::THRIFTBIT_ISA

#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q8_0 {
    static constexpr int block_size = 32, block_bytes = 34, elements = 32;
    static constexpr float places[] = {127, 127.25, 127.5, 128, 129, 131, 135, 140};

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        Lanes largest = 0.0f;
        for (int e = 0; e < elements; ++e) largest = maximum(largest, magnitude(x[e]));
        Lanes best_d = 0.0f, least = kInfinity;
        for (const float place : places) {
            const Lanes d = half(largest / Lanes(place)), inverse_d = inverse(d);
            const Lanes left = total<elements>([&](int e) {
                const Lanes residual = x[e] - d * nearest(x[e] * inverse_d, -127, 127);
                return w[e] * residual * residual;
            });
            const Mask better = left < least;
            least = select(better, left, least);
            best_d = select(better, d, best_d);
        }
        const Lanes inverse_d = inverse(best_d);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e) levels[e] = nearest(x[e] * inverse_d, -127, 127);
        uint8_t bytes[kLanes][elements];
        store_levels<elements>(levels, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(best_d[b], out);
            std::memcpy(out + 2, bytes[b], elements);
        }
    }
};

static const Register<Q8_0> registered("Q8_0");

}  // namespace thriftbit::THRIFTBIT_ISA

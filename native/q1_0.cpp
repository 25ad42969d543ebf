#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q1_0 {
    static constexpr int block_size = 128, block_bytes = 18, elements = 128;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        const Lanes sum = total<elements>([&](int e) { return w[e] * magnitude(x[e]); });
        const Lanes d = half(sum / total<elements>([&](int e) { return w[e]; }));
        Lanes eights[elements / 8];
        for (int k = 0; k < elements / 8; ++k) {
            eights[k] = 0.0f;
            for (int e = 0; e < 8; ++e) eights[k] += select(x[8 * k + e] >= Lanes(0.0f), float(1 << e), 0.0f);
        }
        uint8_t bytes[kLanes][elements / 8];
        store_levels<elements / 8>(eights, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            std::memcpy(out + 2, bytes[b], elements / 8);
        }
    }
};

static const Register<Q1_0> registered("Q1_0");

}  // namespace thriftbit::THRIFTBIT_ISA

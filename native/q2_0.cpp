#include "blocks.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q2_0 {
    static constexpr int block_size = 64, block_bytes = 18, elements = 64;

    struct Values {
        static constexpr int starts = 8;
        static Lanes nearest_to(const Lanes& y) { return nearest(y, -1, 2); }
        static constexpr double start(int k) {
            constexpr double places[starts] = {1.8, 2.3, 2.8, 3.5, -1.1, -1.5, -2, -2.6};
            return places[k];
        }
    };

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        const Lanes d = search_symmetric_block<elements, Values>(x, w, magnitude(signed_extreme<elements>(x)));
        const Lanes inverse_d = inverse(d);
        Lanes fours[elements / 4];
        for (int k = 0; k < elements / 4; ++k) {
            fours[k] = 0.0f;
            for (int e = 0; e < 4; ++e)
                fours[k] += (Values::nearest_to(x[4 * k + e] * inverse_d) + Lanes(1.0f)) * Lanes(float(1 << 2 * e));
        }
        uint8_t bytes[kLanes][elements / 4];
        store_levels<elements / 4>(fours, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            std::memcpy(out + 2, bytes[b], elements / 4);
        }
    }
};

static const Register<Q2_0> registered("Q2_0");

}  // namespace thriftbit::THRIFTBIT_ISA

#include "affine.hpp"
#include "blocks.hpp"
#include "nibbles.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Q4_1 and Q5_1 differ in their fifth bit alone.
template <int top>
struct QAffine {
    static constexpr int block_size = 32, elements = 32, block_bytes = top == 15 ? 20 : 24;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        Affine found;
        if constexpr (std::is_same_v<Weights, Ones>) {  // llama.cpp hurries here, so there is no time for a search
            found = search_affine<elements, top, true, OuterEnds, 1>(x, w);
            found.m = half(found.m);
            found.s = fit_scale<elements, top>(x, w, found.s, found.m);
        } else {
            found = round_affine<elements, top>(x, w, search_affine<elements, top, true, BlockEnds<top>, 2>(x, w));
        }
        const auto& [d, m] = found;
        const Lanes inverse_d = inverse(d);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e) levels[e] = nearest((x[e] + m) * inverse_d, 0, top);
        uint8_t bytes[kLanes][elements];
        store_levels<elements>(levels, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            store_half(-m[b], out + 2);
            if (top == 31) store_fifth_bits(bytes[b], out + 4);
            store_nibbles(bytes[b], out + block_bytes - 16);
        }
    }
};

static const Register<QAffine<15>> registered_q4_1("Q4_1");
static const Register<QAffine<31>> registered_q5_1("Q5_1");

}  // namespace thriftbit::THRIFTBIT_ISA

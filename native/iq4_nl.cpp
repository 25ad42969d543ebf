#include "blocks.hpp"
#include "iq4.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ4NL {
    static constexpr int block_size = 32, block_bytes = 18, elements = 32;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        const Lanes theirs = search_as_llama_cpp(x, w, mean_squares);
        const Lanes d = search_symmetric_block<elements, IQ4Values>(x, w, theirs), inverse_d = inverse(d);
        Lanes values[elements];
        for (int e = 0; e < elements; ++e) values[e] = IQ4Values::nearest_to(x[e] * inverse_d);
        uint8_t bytes[kLanes][elements];
        store_levels<elements>(values, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            const uint8_t* v = bytes[b];
            for (int e = 0; e < 16; ++e) out[2 + e] = IQ4Values::level(v[e]) | IQ4Values::level(v[e + 16]) << 4;
        }
    }
};

static const Register<IQ4NL> registered("IQ4_NL");

}  // namespace thriftbit::THRIFTBIT_ISA

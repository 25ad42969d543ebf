#include "blocks.hpp"
#include "iq4.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ4XS {
    static constexpr int block_size = 256, block_bytes = 136, elements = 32;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        const auto theirs = llama_cpp::nearest_multiples<8>(search_as_llama_cpp(x, w, mean_squares), -32);
        const auto found = search_super_symmetric<elements, IQ4Values, 8, -32>(x, w, 1.0 / 64, theirs);
        uint8_t values[kLanes][elements];
        store_levels<elements>(found.values, values);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(found.d[b], out);
            unsigned high = 0;
            for (int j = 0; j < 4; ++j) out[4 + j] = 0;
            for (int j = 0; j < 8; ++j) {
                const unsigned scale = unsigned(found.scales[8 * b + j] + 32);
                high |= (scale >> 4) << 2 * j;
                out[4 + j / 2] |= (scale & 15) << 4 * (j % 2);
            }
            out[2] = uint8_t(high);
            out[3] = uint8_t(high >> 8);
            for (int j = 0; j < 8; ++j) {
                const uint8_t* v = values[8 * b + j];
                for (int e = 0; e < 16; ++e)
                    out[8 + 16 * j + e] = IQ4Values::level(v[e]) | IQ4Values::level(v[e + 16]) << 4;
            }
        }
    }
};

static const Register<IQ4XS> registered("IQ4_XS");

}  // namespace thriftbit::THRIFTBIT_ISA

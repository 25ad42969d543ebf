#include "blocks.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q6K {
    static constexpr int block_size = 256, block_bytes = 210, elements = 16;
    using Starts = llama_cpp::WholeNumberStarts<32>;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int, uint8_t* out) {
        Lanes alone;
        if constexpr (std::is_same_v<Weights, Ones>)
            alone = llama_cpp::search_symmetric<elements, Starts>(x, llama_cpp::squares<elements>(x));
        else
            alone = llama_cpp::search_symmetric<elements, Starts>(x, w);
        const auto theirs = llama_cpp::nearest_multiples<16>(alone, -128);
        const auto found = search_super_symmetric<elements, WholeNumbers<32>, 16, -128>(x, w, 1.0 / 64, theirs);
        uint8_t values[kLanes][elements];
        store_levels<elements>(found.values, values);
        const uint8_t* v = values[0];
        for (int part = 0; part < 2; ++part, v += 128) {
            uint8_t *low = out + 64 * part, *high = out + 128 + 32 * part;
            for (int e = 0; e < 32; ++e) {
                uint8_t l[4];
                for (int j = 0; j < 4; ++j) l[j] = uint8_t(v[e + 32 * j] + 32);
                low[e] = (l[0] & 15) | (l[2] & 15) << 4;
                low[e + 32] = (l[1] & 15) | (l[3] & 15) << 4;
                high[e] = l[0] >> 4 | (l[1] >> 4) << 2 | (l[2] >> 4) << 4 | (l[3] >> 4) << 6;
            }
        }
        for (int j = 0; j < 16; ++j) out[192 + j] = uint8_t(int8_t(found.scales[j]));
        store_half(found.d[0], out + 208);
    }
};

static const Register<Q6K> registered("Q6_K");

}  // namespace thriftbit::THRIFTBIT_ISA

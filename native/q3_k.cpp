#include "blocks.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q3K {
    static constexpr int block_size = 256, block_bytes = 110, elements = 16;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int, uint8_t* out) {
        const auto found = search_super_symmetric<elements, WholeNumbers<4>, 16, -32>(x, w, 1.0 / 64, as_llama_cpp(x, w, mean_squares));
        uint8_t values[kLanes][elements];
        store_levels<elements>(found.values, values);
        uint8_t* v = values[0];
        for (int i = 0; i < block_size; ++i) v[i] = uint8_t(v[i] + 4);
        for (int e = 0; e < 32; ++e) {
            uint8_t bits = 0;
            for (int j = 0; j < 8; ++j) bits |= (v[e + 32 * j] >> 2) << j;
            out[e] = bits;
        }
        for (int part = 0; part < 2; ++part)
            for (int e = 0; e < 32; ++e) {
                const uint8_t* from = v + 128 * part + e;
                out[32 + 32 * part + e] =
                    (from[0] & 3) | (from[32] & 3) << 2 | (from[64] & 3) << 4 | (from[96] & 3) << 6;
            }
        uint8_t scales[16];
        for (int j = 0; j < 16; ++j) scales[j] = uint8_t(found.scales[j] + 32);
        for (int j = 0; j < 8; ++j) out[96 + j] = (scales[j] & 15) | (scales[j + 8] & 15) << 4;
        for (int j = 0; j < 4; ++j)
            out[104 + j] = scales[j] >> 4 | (scales[j + 4] >> 4) << 2 | (scales[j + 8] >> 4) << 4 | (scales[j + 12] >> 4) << 6;
        store_half(found.d[0], out + 108);
    }

    template <class Weights>
    static llama_cpp::Symmetric<16> as_llama_cpp(const Lanes* x, const Weights& w, const Lanes& mean_squares) {
        if constexpr (std::is_same_v<Weights, Ones>) {
            return llama_cpp::nearest_multiples<16>(llama_cpp::descend_symmetric<elements, 4>(x), -32);
        } else {
            const auto weights = llama_cpp::weights<elements>(x, w, mean_squares * Lanes(2.0f));
            const Lanes alone = llama_cpp::search_symmetric<elements, llama_cpp::WholeNumberStarts<4>>(x, weights);
            return llama_cpp::searched_multiples<16, 32>(alone, total<elements>([&](int e) { return weights[e]; }));
        }
    }
};

static const Register<Q3K> registered("Q3_K");

}  // namespace thriftbit::THRIFTBIT_ISA

#include "k_with_mins.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q5K {
    static constexpr int block_size = 256, block_bytes = 176, elements = 32;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        const auto found = search_k_with_mins<31, PlainSteps>(x, w, mean_squares);
        uint8_t levels[kLanes][elements];
        store_levels<elements>(found.levels, levels);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_head(found, b, out);
            uint8_t *high = out + 16, *low = out + 48;
            for (int e = 0; e < elements; ++e) {
                uint8_t bits = 0;
                for (int j = 0; j < 8; ++j) bits |= (levels[8 * b + j][e] >> 4) << j;
                high[e] = bits;
            }
            for (int pair = 0; pair < 4; ++pair)
                for (int e = 0; e < elements; ++e)
                    *low++ = (levels[8 * b + 2 * pair][e] & 15) | (levels[8 * b + 2 * pair + 1][e] & 15) << 4;
        }
    }

    struct PlainSteps {
        static constexpr float first = -0.5f, step = 0.1f;
        static constexpr int count = 15;
        static constexpr bool absolute = false;
    };
};

static const Register<Q5K> registered("Q5_K");

}  // namespace thriftbit::THRIFTBIT_ISA

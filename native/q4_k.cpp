#include "k_with_mins.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q4K {
    static constexpr int block_size = 256, block_bytes = 144, elements = 32;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        const auto found = search_k_with_mins<15, PlainSteps>(x, w, mean_squares);
        uint8_t levels[kLanes][elements];
        store_levels<elements>(found.levels, levels);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_head(found, b, out);
            uint8_t* q = out + 16;
            for (int pair = 0; pair < 4; ++pair)
                for (int e = 0; e < elements; ++e)
                    *q++ = levels[8 * b + 2 * pair][e] | levels[8 * b + 2 * pair + 1][e] << 4;
        }
    }

    struct PlainSteps {
        static constexpr float first = -1.0f, step = 0.1f;
        static constexpr int count = 20;
        static constexpr bool absolute = false;
    };
};

static const Register<Q4K> registered("Q4_K");

}  // namespace thriftbit::THRIFTBIT_ISA

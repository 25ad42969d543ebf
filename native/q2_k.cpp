#include "affine.hpp"
#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q2K {
    static constexpr int block_size = 256, block_bytes = 84, elements = 16;
    static constexpr auto mean_squares = MeanSquares::kOfBlocks;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int, uint8_t* out) {
        const auto found = search_super_affine<elements, 3, 16, 15>(x, w, 1.0 / 32, as_llama_cpp(x, w, mean_squares));
        uint8_t levels[kLanes][elements];
        store_levels<elements>(found.levels, levels);
        for (int j = 0; j < 16; ++j) out[j] = uint8_t(found.scales[j]) | uint8_t(found.mins[j]) << 4;
        const uint8_t* l = levels[0];
        uint8_t* q = out + 16;
        for (int part = 0; part < 2; ++part, l += 128)
            for (int e = 0; e < 32; ++e) *q++ = l[e] | l[e + 32] << 2 | l[e + 64] << 4 | l[e + 96] << 6;
        store_half(found.d[0], out + 80);
        store_half(found.d_min[0], out + 82);
    }

    template <class Weights>
    static auto as_llama_cpp(const Lanes* x, const Weights& w, const Lanes& mean_squares) {
        if constexpr (std::is_same_v<Weights, Ones>)
            return llama_cpp::plain<elements, 3, 16, 15, PlainSteps>(x, llama_cpp::sizes<elements>(x));
        else
            return llama_cpp::with_importance<elements, 3, 16, 15>(x, llama_cpp::weights<elements>(x, w, mean_squares));
    }

    struct PlainSteps {
        static constexpr float first = -0.5f, step = 0.1f;
        static constexpr int count = 15;
        static constexpr bool absolute = true;
    };
};

static const Register<Q2K> registered("Q2_K");

}  // namespace thriftbit::THRIFTBIT_ISA

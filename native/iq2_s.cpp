#include "iq2.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ2S : IQ2, IQ2Steps {
    static constexpr int block_bytes = 82, elements = 16;
    static constexpr bool even_signs = false;
    static constexpr float starts[] = {0.6f, 0.4f};
    static constexpr float their_factor = 0.9875f;

    static const Codewords<group, levels>& codewords() {
        static const Codewords<group, levels> words(codebook("iq2_s"));
        return words;
    }

    static const Neighbours<group, levels>& neighbours() {
        static const Neighbours<group, levels> table(codebook("iq2_s"), 1);
        return table;
    }

    static Lanes their_weight(const Lanes& x, const Lanes* w, const Lanes& mean_square) {
        const Lanes doubled = mean_square + mean_square;
        return w ? *w * root(doubled + x * x) : Lanes(0.25f) * doubled + x * x;
    }

    static TheirSubBlocks<IQ2S> their_sub_blocks(const Lanes* x, const Lanes* w) {
        return search_from_highest<IQ2S>(x, w, 1e-8f);
    }

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int, uint8_t* out) {
        const SuperBlocks<IQ2S> found = search_iq2<IQ2S>(x, w, mean_squares);
        store_half(found.d[0], out);
        for (int j = 0; j < kLanes; ++j) {
            const unsigned first = found.parts.codes[0][j], second = found.parts.codes[1][j];
            for (int g = 0; g < 2; ++g) {
                out[2 + 2 * j + g] = uint8_t(found.parts.codes[g][j]);
                out[34 + 2 * j + g] = uint8_t(sign_bits(x, found.parts, j, g));
            }
            const unsigned high = first >> 8 | second >> 8 << 2, scale = unsigned(found.parts.scale[j]);
            uint8_t &high_bits = out[66 + j / 2], &scales = out[74 + j / 2];
            high_bits = uint8_t(j % 2 ? high_bits | high << 4 : high);
            scales = uint8_t(j % 2 ? scales | scale << 4 : scale);
        }
    }
};

static const Register<IQ2S> registered("IQ2_S");

}  // namespace thriftbit::THRIFTBIT_ISA

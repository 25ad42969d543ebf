#include "iq2.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ2XS : IQ2, IQ2Steps {
    static constexpr int block_bytes = 74, elements = 16;
    static constexpr bool even_signs = true;
    static constexpr float starts[] = {0.6f, 0.4f};
    static constexpr float their_factor = 1.0f;

    static const Codewords<group, levels>& codewords() {
        static const Codewords<group, levels> words(codebook("iq2_xs"));
        return words;
    }

    static const Neighbours<group, levels>& neighbours() {
        static const Neighbours<group, levels> table(codebook("iq2_xs"), 2);
        return table;
    }

    static Lanes their_weight(const Lanes& x, const Lanes* w, const Lanes& mean_square) {
        const Lanes size = root(mean_square + x * x);
        return w ? *w * size : size;
    }

    static TheirSubBlocks<IQ2XS> their_sub_blocks(const Lanes* x, const Lanes* w) {
        return search_from_highest<IQ2XS>(x, w, 1e-15f);
    }

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int, uint8_t* out) {
        const SuperBlocks<IQ2XS> found = search_iq2<IQ2XS>(x, w, mean_squares);
        store_half(found.d[0], out);
        for (int j = 0; j < kLanes; ++j) {
            for (int g = 0; g < 2; ++g) {
                const unsigned word = found.parts.codes[g][j] | (sign_bits(x, found.parts, j, g) & 127) << 9;
                uint8_t* to = out + 2 + 4 * j + 2 * g;
                to[0] = uint8_t(word);
                to[1] = uint8_t(word >> 8);
            }
            const unsigned scale = unsigned(found.parts.scale[j]);
            uint8_t& pair = out[66 + j / 2];
            pair = uint8_t(j % 2 ? pair | scale << 4 : scale);
        }
    }
};

static const Register<IQ2XS> registered("IQ2_XS");

}  // namespace thriftbit::THRIFTBIT_ISA

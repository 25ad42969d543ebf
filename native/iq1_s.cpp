#include "iq1.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ1S {
    static constexpr int block_size = 256, block_bytes = 50, elements = 32;
    static constexpr bool takes_zero_importance = true;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        static const TernaryCodewords codewords(codebook("iq1_s"));
        const auto found = IQ1<elements, 1>::search(codewords, x, w);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(found.d[b], out);
            for (int j = 0; j < 8; ++j) {
                const int lane = 8 * b + j;
                unsigned word = unsigned(found.scale[lane]) << 12 | (found.shift[0][lane] > 0 ? 0u : 1u) << 15;
                for (int g = 0; g < 4; ++g) {
                    const unsigned code = codewords.code(found.pattern[g][lane]);
                    out[2 + 4 * j + g] = uint8_t(code);
                    word |= (code >> 8) << 3 * g;
                }
                out[34 + 2 * j] = uint8_t(word);
                out[35 + 2 * j] = uint8_t(word >> 8);
            }
        }
    }
};

static const Register<IQ1S> registered("IQ1_S");

}  // namespace thriftbit::THRIFTBIT_ISA

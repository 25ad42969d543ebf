#include "iq1.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ1M {
    static constexpr int block_size = 256, block_bytes = 56, elements = 16;
    static constexpr bool takes_zero_importance = true;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        static const TernaryCodewords codewords(codebook("iq1_s"));
        const auto found = IQ1<elements, 2>::search(codewords, x, w);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            const unsigned d = half_bits(found.d[b] + 0.0f);  // no negative zero
            for (int word = 0; word < 4; ++word) {
                unsigned bits = (d >> 4 * word & 15) << 12;
                for (int j = 0; j < 4; ++j) bits |= unsigned(found.scale[16 * b + 4 * word + j]) << 3 * j;
                out[48 + 2 * word] = uint8_t(bits);
                out[49 + 2 * word] = uint8_t(bits >> 8);
            }
            for (int j = 0; j < 16; ++j) {
                const int lane = 16 * b + j;
                unsigned above = 0;  // three bits of each code, and one for a negative shift
                for (int g = 0; g < 2; ++g) {
                    const unsigned code = codewords.code(found.pattern[g][lane]);
                    out[2 * j + g] = uint8_t(code);
                    above |= (code >> 8 | (found.shift[g][lane] > 0 ? 0u : 8u)) << 4 * g;
                }
                out[32 + j] = uint8_t(above);
            }
        }
    }
};

static const Register<IQ1M> registered("IQ1_M");

}  // namespace thriftbit::THRIFTBIT_ISA

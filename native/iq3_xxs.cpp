#include "iq3.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ3XXS : IQ3 {
    static constexpr int block_bytes = 98;
    static constexpr const char* book = "iq3_xxs";
    static constexpr bool even_signs = true;
    static constexpr float unit = 0.25f, top = 62;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        const IQ3Search<IQ3XXS> found(x, w);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(found.d[b], out);
            for (int j = 0; j < sub_blocks; ++j) {
                const int lane = sub_blocks * b + j;
                for (int g = 0; g < groups; ++g) out[2 + groups * j + g] = uint8_t(found.codes[g][lane]);
                // the eighth sign follows from the seven others
                uint32_t word = uint32_t(found.scales[lane]) << 28;
                for (int i = 0; i < 4; ++i) word |= uint32_t(found.minus[lane][i] & 127) << 7 * i;
                for (int i = 0; i < 4; ++i) out[66 + 4 * j + i] = uint8_t(word >> 8 * i);
            }
        }
    }
};

static const Register<IQ3XXS> registered("IQ3_XXS");

}  // namespace thriftbit::THRIFTBIT_ISA

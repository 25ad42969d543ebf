#include "iq3.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ3S : IQ3 {
    static constexpr int block_bytes = 110;
    static constexpr const char* book = "iq3_s";
    static constexpr bool even_signs = false;
    static constexpr float unit = 1, top = 15;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        const IQ3Search<IQ3S> found(x, w);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(found.d[b], out);
            for (int j = 0; j < sub_blocks; ++j) {
                const int lane = sub_blocks * b + j;
                unsigned high = 0;
                for (int g = 0; g < groups; ++g) {
                    out[2 + groups * j + g] = uint8_t(found.codes[g][lane]);
                    high |= unsigned(found.codes[g][lane] >> 8) << g;
                }
                out[66 + j] = uint8_t(high);
                std::memcpy(out + 74 + 4 * j, found.minus[lane], 4);
            }
            const auto scale = [&](int j) { return int(found.scales[sub_blocks * b + j]); };
            for (int j = 0; j < sub_blocks; j += 2) out[106 + j / 2] = uint8_t(scale(j) | scale(j + 1) << 4);
        }
    }
};

static const Register<IQ3S> registered("IQ3_S");

}  // namespace thriftbit::THRIFTBIT_ISA

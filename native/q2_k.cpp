#include "affine.hpp"
#include "blocks.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Q2K {
    static constexpr int block_size = 256, block_bytes = 84, elements = 16;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int, uint8_t* out) {
        const auto found = search_super_affine<elements, 3, 16, 15>(x, w, 1.0 / 32);
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
};

static const Register<Q2K> registered("Q2_K");

}  // namespace thriftbit::THRIFTBIT_ISA

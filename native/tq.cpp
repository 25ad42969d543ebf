#include "blocks.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct Ternary {
    static constexpr int starts = 4;
    static Lanes nearest_to(const Lanes& y) { return nearest(y, -1, 1); }
    static constexpr double start(int k) { return 1.5 + 0.5 * k; }
};

template <class Weights>
inline Lanes search_ternary(const Lanes* x, const Weights& w, uint8_t (*levels)[256]) {
    const Lanes d = magnitude(search_symmetric_block<256, Ternary>(x, w, signed_extreme<256>(x)));
    const Lanes inverse_d = inverse(d);
    Lanes found[256];
    for (int e = 0; e < 256; ++e) found[e] = Ternary::nearest_to(x[e] * inverse_d) + Lanes(1.0f);
    store_levels<256>(found, levels);
    return d;
}

struct TQ1 {
    static constexpr int block_size = 256, block_bytes = 54, elements = 256;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        uint8_t levels[kLanes][elements];
        const Lanes d = search_ternary(x, w, levels);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            const uint8_t* l = levels[b];
            for (int e = 0; e < 32; ++e) out[e] = packed(l + e, 32, 5);
            for (int e = 0; e < 16; ++e) out[32 + e] = packed(l + 160 + e, 16, 5);
            for (int e = 0; e < 4; ++e) out[48 + e] = packed(l + 240 + e, 4, 4);
            store_half(d[b], out + 52);
        }
    }

    // Up to five ternary digits as a fraction of 256, rounded up. A decoder finds each digit by multiplying by 3.
    static uint8_t packed(const uint8_t* l, int stride, int digits) {
        unsigned number = 0;
        for (int i = 0; i < 5; ++i) number = number * 3 + (i < digits ? l[i * stride] : 0);
        return uint8_t((number * 256 + 242) / 243);
    }
};

struct TQ2 {
    static constexpr int block_size = 256, block_bytes = 66, elements = 256;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        uint8_t levels[kLanes][elements];
        const Lanes d = search_ternary(x, w, levels);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            for (int part = 0; part < 2; ++part)
                for (int e = 0; e < 32; ++e) {
                    const uint8_t* l = levels[b] + 128 * part + e;
                    out[32 * part + e] = l[0] | l[32] << 2 | l[64] << 4 | l[96] << 6;
                }
            store_half(d[b], out + 64);
        }
    }
};

static const Register<TQ1> registered_tq1("TQ1_0");
static const Register<TQ2> registered_tq2("TQ2_0");

}  // namespace thriftbit::THRIFTBIT_ISA

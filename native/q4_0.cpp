#include "blocks.hpp"
#include "nibbles.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Q4_0 and Q5_0 differ in their fifth bit alone.
template <int n>
struct QSymmetric {
    static constexpr int block_size = 32, elements = 32, block_bytes = n == 8 ? 18 : 22;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, int count, uint8_t* out) {
        using Starts = std::conditional_t<std::is_same_v<Weights, Ones>, FewStarts<n>, BlockStarts<n>>;
        const Lanes d = half(search_symmetric<elements, Starts>(x, w)), inverse_d = inverse(d);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e) levels[e] = nearest(x[e] * inverse_d, -n, n - 1) + Lanes(n);
        uint8_t bytes[kLanes][elements];
        store_levels<elements>(levels, bytes);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            if (n == 16) store_fifth_bits(bytes[b], out + 2);
            store_nibbles(bytes[b], out + block_bytes - 16);
        }
    }
};

static const Register<QSymmetric<8>> registered_q4_0("Q4_0");
static const Register<QSymmetric<16>> registered_q5_0("Q5_0");

}  // namespace thriftbit::THRIFTBIT_ISA

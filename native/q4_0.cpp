#include "blocks.hpp"
#include "nibbles.hpp"
#include "symmetric.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Q4_0 and Q5_0 differ in their fifth bit alone.
template <int n>
struct QSymmetric {
    static constexpr int block_size = 32, elements = 32, block_bytes = n == 8 ? 18 : 22;
    static constexpr auto mean_squares = MeanSquares::kOfRows;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        Lanes d;
        if constexpr (std::is_same_v<Weights, Ones>) {  // llama.cpp does not search here, so neither do we
            d = search_symmetric_block<elements, FewStarts<n>>(x, w, signed_extreme<elements>(x) * Lanes(-1.0f / n));
        } else {
            const auto weights = llama_cpp::weights<elements>(x, w, mean_squares);
            const Lanes theirs = llama_cpp::search_symmetric<elements, llama_cpp::WholeNumberStarts<n>>(x, weights);
            d = search_symmetric_block<elements, WholeNumbers<n>>(x, w, theirs);
        }
        const Lanes inverse_d = inverse(d);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e) levels[e] = nearest(x[e] * inverse_d, -n, n - 1) + Lanes(n);
        if (n == 16) store_fifth_bits(levels, count, block_bytes, out + 2);
        store_nibbles(levels, count, block_bytes, out + block_bytes - 16);
        for (int b = 0; b < count; ++b) store_half(d[b], out + b * block_bytes);
    }
};

static const Register<QSymmetric<8>> registered_q4_0("Q4_0");
static const Register<QSymmetric<16>> registered_q5_0("Q5_0");

}  // namespace thriftbit::THRIFTBIT_ISA

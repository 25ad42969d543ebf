#include "affine.hpp"
#include "blocks.hpp"
#include "nibbles.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Q4_1 and Q5_1 differ in their fifth bit alone.
template <int top>
struct QAffine {
    static constexpr int block_size = 32, elements = 32, block_bytes = top == 15 ? 20 : 24;
    static constexpr auto mean_squares = MeanSquares::kOfRows;

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        Affine found;
        if constexpr (std::is_same_v<Weights, Ones>) {  // llama.cpp does not search here, so neither do we
            found = hurried_affine_block<elements, top>(x);
        } else {
            const auto weights = llama_cpp::weights<elements>(x, w, mean_squares);
            const Affine theirs = llama_cpp::search_affine<elements, top, llama_cpp::ImportanceSteps>(x, weights);
            found = search_affine_block<elements, top, BlockEnds<top>>(x, w, theirs);
        }
        const Lanes d = found.s, m = found.m;
        const Lanes inverse_d = inverse(d);
        Lanes levels[elements];
        for (int e = 0; e < elements; ++e) levels[e] = nearest((x[e] + m) * inverse_d, 0, top);
        if (top == 31) store_fifth_bits(levels, count, block_bytes, out + 4);
        store_nibbles(levels, count, block_bytes, out + block_bytes - 16);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(d[b], out);
            store_half(-m[b], out + 2);
        }
    }
};

static const Register<QAffine<15>> registered_q4_1("Q4_1");
static const Register<QAffine<31>> registered_q5_1("Q5_1");

}  // namespace thriftbit::THRIFTBIT_ISA

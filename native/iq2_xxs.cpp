#include "iq2.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ2XXS : IQ2 {
    static constexpr int block_bytes = 66, elements = 32, steps = 13;
    static constexpr bool even_signs = true;
    static constexpr float starts[] = {0.5f};
    static constexpr float their_factor = 1.0f;
    static constexpr auto second_look = SecondLook::kAll;
    static constexpr float factor(int k) { return largest_number + float(k - 6) * 0.1f; }

    static const Codewords<group, levels>& codewords() {
        static const Codewords<group, levels> words(codebook("iq2_xxs"));
        return words;
    }

    static const Neighbours<group, levels>& neighbours() {
        static const Neighbours<group, levels> table(codebook("iq2_xxs"), 2);
        return table;
    }

    static Lanes their_weight(const Lanes& x, const Lanes* w, const Lanes& mean_square) {
        const Lanes size = root(mean_square + x * x);
        return w ? *w * size : size;
    }

    // llama.cpp's scale for whole numbers from 0 to 4, with which its search begins. It keeps the numbers in bytes, so
    // a negative one counts as 256 more where it is read again.
    static Lanes first_scale(const Lanes* x, const Lanes* w, const Lanes& highest) {
        constexpr float most = levels + 1;
        const auto as_byte = [](const Lanes& l) { return l - Lanes(256.0f) * floor_of(l * Lanes(1.0f / 256)); };
        Lanes best_factor = Lanes(most) / highest, least = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes residual = x[e] - Lanes(1.0f) / best_factor * as_byte(nearest(best_factor * x[e], -kMany, kMany));
            least += w[e] * residual * residual;
        }
        for (int k = -4; k <= 4; ++k) {
            if (k == 0) continue;
            const Lanes factor = Lanes(0.1f * float(k) + most) / highest, scale = Lanes(1.0f) / factor;
            Lanes left = 0.0f;
            for (int e = 0; e < elements; ++e) {
                const Lanes residual = x[e] - scale * nearest(factor * x[e], -kMany, most);
                left += w[e] * residual * residual;
            }
            best_factor = select(left < least, factor, best_factor);
            least = minimum(left, least);
        }
        Lanes numbers[elements], sum_xl = 0.0f, sum_ll = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes l = nearest(best_factor * x[e], -kMany, most);
            numbers[e] = as_byte(l);
            sum_xl += w[e] * x[e] * l;
            sum_ll += w[e] * l * l;
        }
        for (int round = 0; round < 5; ++round) {
            bool moved = false;
            for (int e = 0; e < elements; ++e) {
                const Lanes wx = w[e] * x[e];
                const Lanes rest_xl = sum_xl - wx * numbers[e], rest_ll = sum_ll - w[e] * numbers[e] * numbers[e];
                const Mask sensible = (rest_xl > Lanes(0.0f)) & (rest_ll > Lanes(0.0f));
                const Lanes l = nearest(x[e] * rest_ll / select(sensible, rest_xl, 1.0f), -kMany, most);
                const Lanes now_xl = rest_xl + wx * l, now_ll = rest_ll + w[e] * l * l;
                const Mask better = sensible & (l != numbers[e]) &
                                    (now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll);
                numbers[e] = select(better, as_byte(l), numbers[e]);
                sum_xl = select(better, now_xl, sum_xl);
                sum_ll = select(better, now_ll, sum_ll);
                moved |= any(better);
            }
            if (!moved) break;
        }
        const Mask sensible = sum_ll > Lanes(0.0f);
        return select(sensible, sum_xl / select(sensible, sum_ll, 1.0f), 0.0f);
    }
    static constexpr float kMany = 4e6f;  // beyond this llama.cpp's rounding is not defined

    static TheirSubBlocks<IQ2XXS> their_sub_blocks(const Lanes* x, const Lanes* w) {
        Lanes highest = x[0];
        for (int e = 1; e < elements; ++e) highest = maximum(highest, x[e]);
        const Mask some = highest >= Lanes(1e-15f);
        const Lanes scale = first_scale(x, w, select(some, highest, 1.0f)), top = scale * Lanes(float(levels));
        const Mask usable = some & (top > Lanes(0.0f));
        return search_neighbours<IQ2XXS>(neighbours(), x, w, select(usable, top, 1.0f), scale, usable);
    }

    template <class Weights>
    static void encode(const Lanes* x, const Weights& w, const Lanes& mean_squares, int count, uint8_t* out) {
        const SuperBlocks<IQ2XXS> found = search_iq2<IQ2XXS>(x, w, mean_squares);
        for (int b = 0; b < count; ++b, out += block_bytes) {
            store_half(found.d[b], out);
            for (int j = 0; j < 8; ++j) {
                const int lane = 8 * b + j;
                uint8_t* to = out + 2 + 8 * j;
                uint32_t above = uint32_t(found.parts.scale[lane]) << 28;
                for (int g = 0; g < 4; ++g) {
                    to[g] = uint8_t(found.parts.codes[g][lane]);
                    above |= (sign_bits(x, found.parts, lane, g) & 127) << 7 * g;
                }
                for (int i = 0; i < 4; ++i) to[4 + i] = uint8_t(above >> 8 * i);
            }
        }
    }
};

static const Register<IQ2XXS> registered("IQ2_XXS");

}  // namespace thriftbit::THRIFTBIT_ISA

// llama.cpp's own searches, sixteen blocks at a time: the fast version of tests/conformance/specification/llama_cpp.py, which
// explains their purpose. Sums, products and divisions are in llama.cpp's order, so that every bit is the same.
#pragma once

#include <type_traits>

#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA::llama_cpp {

struct Affine {
    Lanes s, m;
};

constexpr float kNothing = 1e-15f;

// Importance times the root of (mean square, or twice that, + x²).
template <int elements, class Weights>
inline std::array<Lanes, elements> weights(const Lanes* x, const Weights& w, const Lanes& square) {
    std::array<Lanes, elements> weights;
    for (int e = 0; e < elements; ++e) weights[e] = w[e] * root(square + x[e] * x[e]);
    return weights;
}

template <int elements>
inline std::array<Lanes, elements> sizes(const Lanes* x) {
    std::array<Lanes, elements> sizes;
    for (int e = 0; e < elements; ++e) sizes[e] = magnitude(x[e]);
    return sizes;
}

// Plus the root of their mean square.
template <int elements>
inline std::array<Lanes, elements> raised_sizes(const Lanes* x) {
    const Lanes size = root(total<elements>([&](int e) { return x[e] * x[e]; }) * Lanes(1.0f / elements));
    std::array<Lanes, elements> sizes;
    for (int e = 0; e < elements; ++e) sizes[e] = size + magnitude(x[e]);
    return sizes;
}

template <int elements>
inline std::array<Lanes, elements> squares(const Lanes* x) {
    std::array<Lanes, elements> squares;
    for (int e = 0; e < elements; ++e) squares[e] = x[e] * x[e];
    return squares;
}

// The scale of symmetric blocks. Starts holds the values, and where the search puts the weight of largest magnitude.
template <int elements, class Starts, class Weights>
Lanes search_symmetric(const Lanes* x, const Weights& w) {
    const Lanes extreme = signed_extreme<elements>(x);
    const Mask usable = magnitude(extreme) >= Lanes(kNothing);
    const Lanes divisor = select(usable, extreme, 1.0f);
    Lanes wx[elements];
    for (int e = 0; e < elements; ++e) wx[e] = w[e] * x[e];
    Lanes s = 0.0f, gain = 0.0f;
    constexpr int together = 4;
    for (int k = 0; k < Starts::count; k += together) {
        Lanes factor[together], sum_xv[together], sum_vv[together];
        for (int i = 0; i < together; ++i) factor[i] = Starts::factor(k + i, divisor), sum_xv[i] = sum_vv[i] = 0.0f;
        for (int e = 0; e < elements; ++e)
            for (int i = 0; i < together; ++i) {
                const Lanes v = Starts::nearest_to(x[e] * factor[i]);
                sum_xv[i] += Starts::value_first ? w[e] * v * x[e] : wx[e] * v;
                sum_vv[i] += w[e] * v * v;
            }
        for (int i = 0; i < together && k + i < Starts::count; ++i) {
            const Mask better = (sum_vv[i] > Lanes(0.0f)) & (sum_xv[i] * sum_xv[i] > gain * sum_vv[i]);
            s = select(better, sum_xv[i] / select(better, sum_vv[i], 1.0f), s);
            gain = select(better, s * sum_xv[i], gain);
        }
    }
    return select(usable, s, 0.0f);
}

// The same for Q3_K without importance: one start, then each level in turn moves if that lowers the error.
template <int elements, int n>
Lanes descend_symmetric(const Lanes* x) {
    const Lanes extreme = signed_extreme<elements>(x);
    const Mask usable = magnitude(extreme) >= Lanes(kNothing);
    const Lanes factor = Lanes(float(-n)) / select(usable, extreme, 1.0f);
    Lanes levels[elements], sum_xl = 0.0f, sum_ll = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes w = x[e] * x[e], level = nearest(x[e] * factor, -n, n - 1);
        levels[e] = level;
        sum_xl += w * x[e] * level;
        sum_ll += w * level * level;
    }
    for (int round = 0; round < 5; ++round) {
        bool moved = false;
        for (int e = 0; e < elements; ++e) {
            const Lanes w = x[e] * x[e], wx = w * x[e];
            const Lanes rest_xl = sum_xl - wx * levels[e], rest_ll = sum_ll - w * levels[e] * levels[e];
            const Mask sensible = rest_xl > Lanes(0.0f);
            const Lanes level = nearest(x[e] * rest_ll / select(sensible, rest_xl, 1.0f), -n, n - 1);
            const Lanes now_xl = rest_xl + wx * level, now_ll = rest_ll + w * level * level;
            const Mask better = sensible & (level != levels[e]) & (now_ll > Lanes(0.0f)) &
                                (now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll);
            levels[e] = select(better, level, levels[e]);
            sum_xl = select(better, now_xl, sum_xl);
            sum_ll = select(better, now_ll, sum_ll);
            moved |= any(better);
        }
        if (!moved) break;
    }
    const Mask fitted = usable & (sum_ll > Lanes(0.0f));
    return select(fitted, sum_xl / select(fitted, sum_ll, 1.0f), 0.0f);
}

// Where llama.cpp's search puts the weight of largest magnitude: first at -n, then a little closer to zero or further away.
template <int n>
struct WholeNumberStarts {
    static constexpr int count = 19;
    static constexpr bool value_first = false;  // the order of the factors in a sum
    static constexpr float place(int k) { return -(float(n) + 0.1f * float(k == 0 ? 0 : k < 10 ? k - 10 : k - 9)); }
    static Lanes factor(int k, const Lanes& extreme) { return Lanes(place(k)) / extreme; }
    static Lanes nearest_to(const Lanes& y) { return nearest(y, -n, n - 1); }
};

// The result of a search for super-blocks of symmetric sub-blocks.
template <int sub_blocks>
struct Symmetric {
    Lanes alone;  // the scales before they become multiples of d
    PerSuperBlock<sub_blocks> d;
    Lanes scales;
};

// Scales as the nearest multiples of d. The largest scale becomes `lowest`.
template <int sub_blocks>
Symmetric<sub_blocks> nearest_multiples(const Lanes& alone, int lowest) {
    Symmetric<sub_blocks> found{alone};
    PerSuperBlock<sub_blocks> factor;
    for (int b = 0; b < factor.count; ++b) {
        factor[b] = float(lowest) * inverse(signed_extreme_of<sub_blocks>(alone, b));
        found.d[b] = half(inverse(factor[b]));
    }
    found.scales = nearest(alone * spread(factor), float(lowest), float(-lowest - 1));
    return found;
}

// The same, found by the search for blocks with the sub-blocks' scales in place of weights.
template <int sub_blocks, int n>
Symmetric<sub_blocks> searched_multiples(const Lanes& alone, const Lanes& w) {
    using Starts = WholeNumberStarts<n>;
    Symmetric<sub_blocks> found{alone};
    PerSuperBlock<sub_blocks> best_factor;
    for (int b = 0; b < best_factor.count; ++b) {
        const float extreme = signed_extreme_of<sub_blocks>(alone, b);
        float s = 0, gain = 0;
        best_factor[b] = found.d[b] = 0;
        if (!((extreme < 0 ? -extreme : extreme) >= kNothing)) continue;
        for (int k = 0; k < Starts::count; k += kLanes) {  // here a lane is a start
            Lanes factor, sum_xv = 0.0f, sum_vv = 0.0f;
            for (int i = 0; i < kLanes; ++i) factor[i] = Starts::place(k + i);
            factor = factor / Lanes(extreme);
            for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
                const Lanes value(alone[j]), weight(w[j]), v = Starts::nearest_to(value * factor);
                sum_xv += weight * value * v;
                sum_vv += weight * v * v;
            }
            for (int i = 0; i < kLanes && k + i < Starts::count; ++i)
                if (sum_vv[i] > 0 && sum_xv[i] * sum_xv[i] > gain * sum_vv[i]) {
                    s = sum_xv[i] / sum_vv[i];
                    gain = s * sum_xv[i];
                    best_factor[b] = factor[i];
                }
        }
        found.d[b] = half(s);
    }
    found.scales = Starts::nearest_to(alone * spread(best_factor));
    return found;
}

// Scale and offset of affine blocks. Steps widens the range; every start begins at the lower end of the best fit so far.
template <int elements, int top, class Steps, class Weights>
Affine search_affine(const Lanes* x, const Weights& w) {
    Lanes lowest = x[0], highest = x[0], sum_w = w[0], sum_x = sum_w * x[0];
    for (int e = 1; e < elements; ++e) {
        lowest = minimum(lowest, x[e]);
        highest = maximum(highest, x[e]);
        sum_w += w[e];
        sum_x += w[e] * x[e];
    }
    lowest = minimum(lowest, 0.0f);
    const Mask usable = highest > lowest;
    const auto error_of = [&](const Lanes& residual) { return Steps::absolute ? magnitude(residual) : residual * residual; };

    const Lanes first = Lanes(float(top)) / select(usable, highest - lowest, 1.0f);
    Lanes s = Lanes(1.0f) / first;
    Lanes least = 0.0f;
    for (int e = 0; e < elements; ++e)
        least += w[e] * error_of(s * nearest(first * (x[e] - lowest), 0, top) + lowest - x[e]);
    for (int k = 0; k <= Steps::count; ++k) {
        const Lanes factor = Lanes(Steps::first + Steps::step * float(k) + float(top)) / (highest - lowest);
        Lanes levels[elements], sum_l = 0.0f, sum_ll = 0.0f, sum_xl = 0.0f;
        for (int e = 0; e < elements; ++e) {
            levels[e] = nearest(factor * (x[e] - lowest), 0, top);
            const Lanes wl = w[e] * levels[e];
            sum_l += wl;
            sum_ll += wl * levels[e];
            sum_xl += wl * x[e];
        }
        const Lanes determinant = sum_w * sum_ll - sum_l * sum_l;
        const Mask sensible = determinant > Lanes(0.0f);
        const Lanes divisor = select(sensible, determinant, 1.0f);
        Lanes s_now = (sum_w * sum_xl - sum_x * sum_l) / divisor;
        Lanes lowest_now = (sum_ll * sum_x - sum_l * sum_xl) / divisor;
        const Mask outside = sensible & (lowest_now > Lanes(0.0f));
        s_now = select(outside, sum_xl / select(outside, sum_ll, 1.0f), s_now);
        lowest_now = select(outside, 0.0f, lowest_now);
        Lanes left = 0.0f;
        for (int e = 0; e < elements; ++e) left += w[e] * error_of(s_now * levels[e] + lowest_now - x[e]);
        const Mask better = sensible & (left < least);
        least = select(better, left, least);
        s = select(better, s_now, s);
        lowest = select(better, lowest_now, lowest);
    }
    return {select(usable, s, 0.0f), Lanes(0.0f) - lowest};
}

// The result of a search for super-blocks of affine sub-blocks.
template <int sub_blocks>
struct SuperBlocks {
    Affine alone;  // before s and m become multiples of d and d_min
    PerSuperBlock<sub_blocks> d, d_min;
    Lanes scales, mins;
};

// Scales or offsets as the nearest multiples of d. The largest becomes `largest`.
template <int sub_blocks>
PerSuperBlock<sub_blocks> nearest_positive(const Lanes& alone, int largest, Lanes& multiples) {
    PerSuperBlock<sub_blocks> d, factor;
    for (int b = 0; b < d.count; ++b) {
        const float most = largest_of<sub_blocks>(alone, b);
        factor[b] = most >= kNothing ? float(largest) / most : 0;
        d[b] = half(most >= kNothing ? most / float(largest) : 0);
    }
    multiples = nearest(alone * spread(factor), 0, float(largest));
    return d;
}

// The same with weights: the best of nine factors, then each multiple in turn moves if that lowers the error.
template <int sub_blocks>
float fitted_positive(const Lanes& s, const Lanes& w, int b, int largest, Lanes& multiples) {
    const int first = b * sub_blocks;
    const float most = largest_of<sub_blocks>(s, b);
    if (!(most >= kNothing)) {
        for (int j = 0; j < sub_blocks; ++j) multiples[first + j] = 0;
        return 0;
    }
    Lanes factor = float(largest) / most;  // here a lane is a factor
    for (int k = 1; k <= 8; ++k) factor[k] = (0.1f * float(k <= 4 ? k - 5 : k - 4) + float(largest)) / most;
    const Lanes step = Lanes(1.0f) / factor;
    Lanes left = 0.0f;
    for (int j = 0; j < sub_blocks; ++j) {
        const Lanes value(s[first + j]), residual = value - step * nearest(factor * value, 0, float(largest));
        left += Lanes(w[first + j]) * residual * residual;
    }
    int best = 0;
    for (int k = 1; k <= 8; ++k)
        if (left[k] < left[best]) best = k;
    const Lanes all = nearest(Lanes(factor[best]) * s, 0, float(largest));
    float sum_xl = 0, sum_ll = 0;
    for (int j = first; j < first + sub_blocks; ++j) {
        multiples[j] = all[j];
        sum_xl += w[j] * s[j] * all[j];
        sum_ll += w[j] * all[j] * all[j];
    }
    for (int round = 0; round < 5; ++round) {
        bool moved = false;
        for (int j = first; j < first + sub_blocks; ++j) {
            const float wx = w[j] * s[j], multiple = multiples[j];
            const float rest_xl = sum_xl - wx * multiple, rest_ll = sum_ll - w[j] * multiple * multiple;
            if (!(rest_xl > 0 && rest_ll > 0)) continue;
            const float moved_to = nearest(s[j] * rest_ll / rest_xl, 0, float(largest));
            if (moved_to == multiple) continue;
            const float now_xl = rest_xl + wx * moved_to, now_ll = rest_ll + w[j] * moved_to * moved_to;
            if (!(now_xl * now_xl * sum_ll > sum_xl * sum_xl * now_ll)) continue;
            multiples[j] = moved_to;
            sum_xl = now_xl;
            sum_ll = now_ll;
            moved = true;
        }
        if (!moved) break;
    }
    return half(sum_ll > 0 ? sum_xl / sum_ll : 0);
}

// Without importance.
template <int elements, int top, int sub_blocks, int largest, class Steps>
SuperBlocks<sub_blocks> plain(const Lanes* x, const std::array<Lanes, elements>& w) {
    SuperBlocks<sub_blocks> found{search_affine<elements, top, Steps>(x, w)};
    found.d = nearest_positive<sub_blocks>(found.alone.s, largest, found.scales);
    found.d_min = nearest_positive<sub_blocks>(found.alone.m, largest, found.mins);
    return found;
}

struct ImportanceSteps {
    static constexpr float first = -0.9f, step = 0.05f;
    static constexpr int count = 36;
    static constexpr bool absolute = false;
};

template <int elements, int top, int sub_blocks, int largest>
SuperBlocks<sub_blocks> with_importance(const Lanes* x, const std::array<Lanes, elements>& w) {
    SuperBlocks<sub_blocks> found{search_affine<elements, top, ImportanceSteps>(x, w)};
    const Lanes sum_w = total<elements>([&](int e) { return w[e]; });
    for (int b = 0; b < found.d.count; ++b) {
        found.d[b] = fitted_positive<sub_blocks>(found.alone.s, sum_w, b, largest, found.scales);
        found.d_min[b] = fitted_positive<sub_blocks>(found.alone.m, sum_w, b, largest, found.mins);
    }
    return found;
}

}  // namespace thriftbit::THRIFTBIT_ISA::llama_cpp

// The twin of src/thriftbit/formats/symmetric.py, where the search is explained.
#pragma once

#include <type_traits>

#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// Whole numbers from -n to n - 1.
template <int n>
struct WholeNumbers {
    static constexpr int starts = n == 4 ? 16 : 28;
    static Lanes nearest_to(const Lanes& y) { return nearest(y, -n, n - 1); }
    static constexpr double start(int k) {
        constexpr int half = starts / 2;
        constexpr double first = n == 4 ? 0.8 : 0.75, last = n == 4 ? 1.6 : 1.3;
        const double place = n * (first + k % half * (last - first) / (half - 1));
        return k < half ? -place : place - 1;
    }
};

// The same values with other starts, for blocks that stand alone: all that llama.cpp tries and more; or just a few.
template <int n>
struct BlockStarts : WholeNumbers<n> {
    static constexpr int starts = 38;
    static constexpr double below[] = {0.75, 0.8, 0.85, 1.15, 1.2, 1.3, 1.4};
    static constexpr double start(int k) {
        if (k < 19) return -(n + 0.1 * (k - 9));
        if (k < 26) return -n * below[k - 19];
        return (n - 1) * (0.8 + (k - 26) * 0.6 / 11);
    }
};

template <int n>
struct FewStarts : WholeNumbers<n> {
    static constexpr int starts = 3;
    static constexpr double start(int k) { return k == 0 ? -n : k == 1 ? -1.06 * n : n - 0.75; }
};

template <int elements, class Values, class Weights>
Lanes search_symmetric(const Lanes* x, const Weights& w) {
    Lanes lowest = x[0], highest = x[0];
    for (int e = 1; e < elements; ++e) {
        lowest = minimum(lowest, x[e]);
        highest = maximum(highest, x[e]);
    }
    const Lanes inverse_extreme = inverse(signed_extreme(lowest, highest));
    Lanes best_s = 0.0f, best_gain = 0.0f;
    // several starts at a time: their sums do not wait for each other
    constexpr int together = Values::starts % 4 == 0 ? 4 : Values::starts % 2 == 0 ? 2 : 1;
    for (int k = 0; k < Values::starts; k += together) {
        Lanes factor[together], s[together], sum_xv[together];
        for (int i = 0; i < together; ++i) factor[i] = inverse_extreme * Lanes(float(Values::start(k + i)));
        for (int round = 0; round < 2; ++round) {
            Lanes sum_vv[together];
            for (int i = 0; i < together; ++i) sum_xv[i] = sum_vv[i] = 0.0f;
            for (int e = 0; e < elements; ++e)
                for (int i = 0; i < together; ++i) {
                    const Lanes v = Values::nearest_to(x[e] * factor[i]), wv = w[e] * v;
                    sum_xv[i] += wv * x[e];
                    sum_vv[i] += wv * v;
                }
            for (int i = 0; i < together; ++i) {
                s[i] = sum_xv[i] * inverse(sum_vv[i]);
                factor[i] = inverse(s[i]);
            }
        }
        for (int i = 0; i < together; ++i) {
            const Lanes gain = s[i] * sum_xv[i];
            const Mask better = gain > best_gain;
            best_s = select(better, s[i], best_s);
            best_gain = select(better, gain, best_gain);
        }
    }
    return best_s;
}

template <int elements, int sub_blocks>
struct SuperSymmetric {
    PerSuperBlock<sub_blocks> d;
    Lanes scales;
    Lanes values[elements];
};

template <int elements, class Values, int sub_blocks, int lowest, class Weights>
SuperSymmetric<elements, sub_blocks> search_super_symmetric(const Lanes* x, const Weights& w, double spacing) {
    using Scalars = PerSuperBlock<sub_blocks>;
    constexpr int highest = -lowest - 1;
    const Lanes alone = search_symmetric<elements, Values>(x, w);
    const Lanes inverse_alone = inverse(alone);
    Lanes curvature = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes v = Values::nearest_to(x[e] * inverse_alone);
        curvature += w[e] * v * v;
    }

    // rate the positions of d with the parabolas: here a lane is a position
    const Lanes shrink = shrinking<lowest>(spacing);
    Scalars d;
    for (int b = 0; b < Scalars::count; ++b) {
        const float smallest = smallest_of<sub_blocks>(alone, b), largest = largest_of<sub_blocks>(alone, b);
        const Lanes candidates = half(Lanes(-smallest >= largest ? smallest : largest) * shrink);
        const Lanes inverse_candidates = inverse(candidates);
        Lanes rating = 0.0f;
        for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
            const Lanes s(alone[j]);
            const Lanes shift = candidates * nearest(s * inverse_candidates, lowest, highest) - s;
            rating += shift * shift * Lanes(curvature[j]);
        }
        int best = 0;
        for (int k = 1; k < kPositions; ++k)
            if (rating[k] < rating[best]) best = k;
        d[b] = candidates[best];
    }

    const auto three_around = [&](const Lanes& d_lanes, Lanes& scales) {  // -> the error of the best, left in `scales`
        Lanes least = kInfinity, best_scales = scales;
        for (int step = -1; step <= 1; ++step) {
            const Lanes scale = clip(scales + Lanes(float(step)), float(lowest), float(highest));
            const Lanes s = d_lanes * scale, inverse_s = inverse(s);
            Lanes left = 0.0f;
            for (int e = 0; e < elements; ++e) {
                const Lanes residual = x[e] - s * Values::nearest_to(x[e] * inverse_s);
                left += w[e] * residual * residual;
            }
            const Mask better = left < least;
            least = select(better, left, least);
            best_scales = select(better, scale, best_scales);
        }
        scales = best_scales;
        return gathered<sub_blocks>(least);
    };

    const Lanes d_lanes = spread(d);
    SuperSymmetric<elements, sub_blocks> found;
    found.scales = nearest(alone * inverse(d_lanes), lowest, highest);
    const Scalars least = three_around(d_lanes, found.scales);

    // fit d to the whole super-block by least squares, and try again
    const Lanes inverse_s = inverse(d_lanes * found.scales);
    Lanes gg = 0.0f, xg = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes g = found.scales * Values::nearest_to(x[e] * inverse_s), wg = w[e] * g;
        gg += wg * g;
        xg += wg * x[e];
    }
    const Scalars sum_gg = gathered<sub_blocks>(gg), sum_xg = gathered<sub_blocks>(xg);
    Scalars d_fitted, better;
    for (int b = 0; b < Scalars::count; ++b) d_fitted[b] = half(sum_xg[b] * inverse(sum_gg[b]));
    Lanes scales_fitted = found.scales;
    const Scalars left = three_around(spread(d_fitted), scales_fitted);
    for (int b = 0; b < Scalars::count; ++b) {
        better[b] = left[b] < least[b];
        found.d[b] = better[b] ? d_fitted[b] : d[b];
    }
    found.scales = select(spread(better) > Lanes(0.0f), scales_fitted, found.scales);

    const Lanes inverse_found = inverse(spread(found.d) * found.scales);
    for (int e = 0; e < elements; ++e) found.values[e] = Values::nearest_to(x[e] * inverse_found);
    return found;
}

}  // namespace thriftbit::THRIFTBIT_ISA

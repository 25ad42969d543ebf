// The fast version of tests/conformance/specification/symmetric.py, which explains the search.
#pragma once

#include <type_traits>

#include "llama_cpp.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// The best of this many neighbouring starts is fitted a second time.
constexpr int kStartsInGroup = 4;

// Whole numbers from -n to n - 1.
template <int n>
struct WholeNumbers {
    static constexpr int starts = n == 4 ? 16 : n == 32 ? 20 : 24;
    static Lanes nearest_to(const Lanes& y) { return nearest(y, -n, n - 1); }
    static constexpr double start(int k) {
        constexpr int half = starts / 2;
        constexpr double first = n == 4 ? 0.8 : 0.75, last = n == 4 ? 1.6 : 1.3;
        const double place = n * (first + k % half * (last - first) / (half - 1));
        return k < half ? -place : place - 1;
    }
};

// The same values, with a few starts only: used where llama.cpp does not search, to be as fast as it is.
template <int n>
struct FewStarts : WholeNumbers<n> {
    static constexpr int starts = 4;
    static constexpr double start(int k) { return k == 0 ? -n : k == 1 ? -1.06 * n : k == 2 ? n - 0.75 : n; }
};

// The sum of w·(x - s·v)², with the nearest v.
template <int elements, class Values, class Weights>
Lanes symmetric_error(const Lanes* x, const Weights& w, const Lanes& s) {
    const Lanes inverse_s = inverse(s);
    return total<elements>([&](int e) {
        const Lanes residual = x[e] - s * Values::nearest_to(x[e] * inverse_s);
        return w[e] * residual * residual;
    });
}

template <int elements, class Values, class Weights>
Lanes search_symmetric(const Lanes* x, const Weights& w, const Lanes& theirs) {
    struct Fit {
        Lanes s = 0.0f, gain = 0.0f;
        void keep_better(const Fit& other) {
            const Mask better = other.gain > gain;
            s = select(better, other.s, s);
            gain = select(better, other.gain, gain);
        }
    };
    // rounds and fits x with several factors at a time, because their sums do not wait for each other
    const auto fit = [&]<size_t together>(const std::array<Lanes, together>& factor) {
        std::array<Lanes, together> sum_xv, sum_vv;
        for (size_t i = 0; i < together; ++i) sum_xv[i] = sum_vv[i] = 0.0f;
        for (int e = 0; e < elements; ++e)
            for (size_t i = 0; i < together; ++i) {
                const Lanes v = Values::nearest_to(x[e] * factor[i]), wv = w[e] * v;
                sum_xv[i] += wv * x[e];
                sum_vv[i] += wv * v;
            }
        Fit best;
        for (size_t i = 0; i < together; ++i) {
            const Lanes s = sum_xv[i] * inverse(sum_vv[i]);
            best.keep_better({s, s * sum_xv[i]});
        }
        return best;
    };
    constexpr int group = kStartsInGroup, groups = Values::starts / group;
    static_assert(Values::starts % group == 0);
    const Lanes inverse_extreme = inverse(signed_extreme<elements>(x));
    std::array<Lanes, groups + 1> again;
    for (int g = 0; g < groups; ++g) {
        std::array<Lanes, group> factor;
        for (int i = 0; i < group; ++i) factor[i] = inverse_extreme * Lanes(float(Values::start(g * group + i)));
        again[g] = inverse(fit(factor).s);
    }
    again[groups] = inverse(theirs);
    Fit best;
    constexpr int rest = (groups + 1) % group;
    for (int g = 0; g + group <= groups + 1; g += group) {
        std::array<Lanes, group> factor;
        for (int i = 0; i < group; ++i) factor[i] = again[g + i];
        best.keep_better(fit(factor));
    }
    if constexpr (rest > 0) {
        std::array<Lanes, rest> factor;
        for (int i = 0; i < rest; ++i) factor[i] = again[groups + 1 - rest + i];
        best.keep_better(fit(factor));
    }
    return best.s;
}

// s in half precision for blocks that stand alone: the search's result, or llama.cpp's if that is better.
template <int elements, class Values, class Weights>
Lanes search_symmetric_block(const Lanes* x, const Weights& w, const Lanes& theirs) {
    const Lanes ours_half = half(search_symmetric<elements, Values>(x, w, theirs)), theirs_half = half(theirs);
    const auto error_of = [&](const Lanes& s) { return symmetric_error<elements, Values>(x, w, s); };
    return select(error_of(theirs_half) < error_of(ours_half), theirs_half, ours_half);
}

template <int elements, int sub_blocks>
struct SuperSymmetric {
    PerSuperBlock<sub_blocks> d;
    Lanes scales;
    Lanes values[elements];
};

template <int elements, class Values, int sub_blocks, int lowest, class Weights>
SuperSymmetric<elements, sub_blocks> search_super_symmetric(const Lanes* x, const Weights& w, double spacing,
                                                               const llama_cpp::Symmetric<sub_blocks>& theirs) {
    using Scalars = PerSuperBlock<sub_blocks>;
    constexpr int highest = -lowest - 1;
    const Lanes alone = search_symmetric<elements, Values>(x, w, theirs.alone);
    const Lanes inverse_alone = inverse(alone);
    Lanes curvature = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes v = Values::nearest_to(x[e] * inverse_alone);
        curvature += w[e] * v * v;
    }

    // rate the candidates for d with the parabolas; here a lane is a candidate
    const Lanes shrink = shrinking<lowest>(spacing);
    Scalars d;
    for (int b = 0; b < Scalars::count; ++b) {
        const Lanes candidates = half(Lanes(signed_extreme_of<sub_blocks>(alone, b)) * shrink);
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

    const auto error_of = [&](const Lanes& s) { return symmetric_error<elements, Values>(x, w, s); };
    const auto three_around = [&](const Lanes& d_lanes, Lanes& scales) {  // -> the error of the best, left in `scales`
        Lanes least = kInfinity, best_scales = scales;
        for (int step = -1; step <= 1; ++step) {
            const Lanes scale = clip(scales + Lanes(float(step)), float(lowest), float(highest));
            const Lanes left = error_of(d_lanes * scale);
            const Mask better = left < least;
            least = select(better, left, least);
            best_scales = select(better, scale, best_scales);
        }
        scales = best_scales;
        return gathered<sub_blocks>(least);
    };

    // llama.cpp's choice, ours, and ours with d fitted to the whole super-block by least squares
    SuperSymmetric<elements, sub_blocks> found;
    found.d = theirs.d;
    found.scales = theirs.scales;
    Scalars least = gathered<sub_blocks>(error_of(spread(theirs.d) * theirs.scales));
    Lanes scales = nearest(alone * inverse(spread(d)), lowest, highest);
    for (const bool last : {false, true}) {
        const Scalars left = three_around(spread(d), scales);
        Scalars better;
        for (int b = 0; b < Scalars::count; ++b) {
            better[b] = left[b] < least[b];
            if (better[b]) least[b] = left[b], found.d[b] = d[b];
        }
        found.scales = select(spread(better) > Lanes(0.0f), scales, found.scales);
        if (last) break;
        const Lanes inverse_s = inverse(spread(d) * scales);
        Lanes gg = 0.0f, xg = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes g = scales * Values::nearest_to(x[e] * inverse_s), wg = w[e] * g;
            gg += wg * g;
            xg += wg * x[e];
        }
        const Scalars sum_gg = gathered<sub_blocks>(gg), sum_xg = gathered<sub_blocks>(xg);
        for (int b = 0; b < Scalars::count; ++b) d[b] = half(sum_xg[b] * inverse(sum_gg[b]));
    }

    const Lanes inverse_found = inverse(spread(found.d) * found.scales);
    for (int e = 0; e < elements; ++e) found.values[e] = Values::nearest_to(x[e] * inverse_found);
    return found;
}

}  // namespace thriftbit::THRIFTBIT_ISA

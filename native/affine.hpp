// The fast version of tests/conformance/specification/affine.py, which explains the search.
#pragma once

#include "llama_cpp.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kRatedTickets = 2;

// Places for an end of the range, in steps inward from the outermost weight: the same lists as in affine.py.
template <int top>
struct SubBlockEnds {
    static constexpr int count = top == 3 ? 6 : 8, group = count / 2;
    static constexpr double first = top == 3 ? -0.6 : top == 15 ? -1.5 : -2.0;
    static constexpr double last = top == 3 ? 0.9 : top == 15 ? 1.5 : 2.0;
    static constexpr double at(int k) { return first + k * (last - first) / (count - 1); }
};

template <int top>
struct BlockEnds {
    static constexpr int count = 10, group = count / 2;
    static constexpr double reach = top == 15 ? 1.5 : 2.0;
    static constexpr double at(int k) { return -reach + k * (2 * reach) / (count - 1); }
};

using llama_cpp::Affine;

// Fits s and m to levels. The gain is how much lower the error is than with the mean alone.
template <int elements, int top, bool m_may_be_negative, class Weights>
class AffineFit {
  public:
    Lanes lowest, highest;
    struct Found {
        Lanes s, m, gain;
        Lanes sum_l, sum_ll;
        void keep_better(const Found& other) {
            const Mask better = (other.gain > gain) & (other.s > Lanes(0.0f));
            s = select(better, other.s, s);
            m = select(better, other.m, m);
            gain = select(better, other.gain, gain);
        }
    };

    AffineFit(const Lanes* x, const Weights& weights) : x(x), w(weights) {
        Lanes sum_x = w[0] * x[0];
        lowest = highest = x[0];
        sum_w = w[0];
        for (int e = 1; e < elements; ++e) {
            lowest = minimum(lowest, x[e]);
            highest = maximum(highest, x[e]);
            sum_w += w[e];
            sum_x += w[e] * x[e];
        }
        if (!m_may_be_negative) lowest = minimum(lowest, 0.0f);
        if (std::is_same_v<Weights, Ones>) sum_w = float(elements);  // equals the sum, without the time to add it up
        inverse_sum_w = inverse(sum_w);
        mean = sum_x * inverse_sum_w;
        for (int e = 0; e < elements; ++e) centred[e] = x[e] - mean;
    }

    // Every weight has the same value.
    Found flat() const {
        const Lanes m = Lanes(0.0f) - mean;
        return {0.0f, m_may_be_negative ? m : maximum(m, 0.0f), -kInfinity, 0.0f, 0.0f};
    }

    // A fit to the levels round((x + offset) * factor).
    Found operator()(const Lanes& offset, const Lanes& factor) const {
        return (*this)(offset, factor, [](const Lanes& y) { return nearest(y, 0, top); });
    }
    template <class Round>
    Found operator()(const Lanes& offset, const Lanes& factor, const Round& round) const {
        Found found;
        Lanes sum_l = 0.0f, sum_ll = 0.0f, sum_xl = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes level = round((x[e] + offset) * factor), wl = w[e] * level;
            sum_l += wl;
            sum_ll += wl * level;
            sum_xl += wl * centred[e];
        }
        const Lanes mean_level = sum_l * inverse_sum_w;
        found.sum_l = sum_l;
        found.sum_ll = sum_ll;
        found.s = sum_xl * inverse(sum_ll - sum_l * mean_level);
        found.m = found.s * mean_level - mean;
        found.gain = found.s * sum_xl;
        if (!m_may_be_negative) {
            const Lanes through_zero = sum_xl + mean * sum_l;
            const Lanes s_through_zero = through_zero * inverse(sum_ll);
            const Mask outside = found.m < Lanes(0.0f);
            found.gain = select(outside, s_through_zero * through_zero - sum_w * mean * mean, found.gain);
            found.s = select(outside, s_through_zero, found.s);
            found.m = select(outside, Lanes(0.0f), found.m);
        }
        return found;
    }
    Found operator()(const Affine& at) const { return (*this)(at.m, inverse(at.s)); }

    // How much more error s and m have than the fitted ones, for the same levels.
    Lanes excess(const Found& found, const Affine& other) const {
        const Lanes ds = other.s - found.s, mean_level = found.sum_l * inverse_sum_w;
        const Lanes shift = ds * mean_level - (other.m - found.m);
        return sum_w * shift * shift + ds * ds * (found.sum_ll - found.sum_l * mean_level);
    }

  private:
    const Lanes* x;
    const std::conditional_t<std::is_same_v<Weights, Ones>, Ones, const Lanes*> w;
    Lanes sum_w, inverse_sum_w, mean, centred[elements];
};

template <int elements, int top, bool m_may_be_negative, class Ends, class Weights>
Affine search_affine(const Lanes* x, const Weights& w, const Affine& theirs) {
    const AffineFit<elements, top, m_may_be_negative, Weights> fit(x, w);
    const Lanes step = (fit.highest - fit.lowest) * float(1.0 / top), inverse_step = inverse(step);
    auto best = fit.flat();
    best.keep_better(fit(theirs));
    for (int i = 0; i < Ends::count; ++i) {
        const Lanes offset = Lanes(0.0f) - (fit.lowest + Lanes(float(Ends::at(i))) * step);
        for (int j = 0; j < Ends::count; j += Ends::group) {
            auto first = fit.flat();
            for (int k = j; k < j + Ends::group; ++k) {
                const double steps = top - Ends::at(i) - Ends::at(k);
                first.keep_better(fit(offset, inverse_step * Lanes(float(top / steps))));
            }
            best.keep_better(fit({first.s, first.m}));
        }
    }
    return {best.s, best.m};
}

// The sum of w·(x - s·l + m)², with the nearest l.
template <int elements, int top, class Weights>
Lanes affine_error(const Lanes* x, const Weights& w, const Lanes& s, const Lanes& m) {
    const Lanes inverse_s = inverse(s);
    return total<elements>([&](int e) {
        const Lanes residual = x[e] - (s * nearest((x[e] + m) * inverse_s, 0, top) - m);
        return w[e] * residual * residual;
    });
}

// s and m in half precision for blocks that stand alone. Candidates are llama.cpp's s and m, and the search's: m rounded
// to half precision, or one of its two neighbours, with s fitted to it.
template <int elements, int top, class Ends, class Weights>
Affine search_affine_block(const Lanes* x, const Weights& w, const Affine& theirs) {
    const Affine found = search_affine<elements, top, true, Ends>(x, w, theirs);
    Affine best{half(theirs.s), half(theirs.m)};
    Lanes least = affine_error<elements, top>(x, w, best.s, best.m);
    const auto try_halves = [&](const Affine& now) {
        const Lanes left = affine_error<elements, top>(x, w, now.s, now.m);
        const Mask better = left < least;
        least = select(better, left, least);
        best.s = select(better, now.s, best.s);
        best.m = select(better, now.m, best.m);
    };
    const Lanes inverse_s = inverse(found.s);
    for (int step = -1; step <= 1; ++step) {
        const Lanes m = half(half(found.m) * Lanes(float(1 + step / 2048.0)));
        Lanes sum_ll = 0.0f, sum_xl = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes raised = x[e] + m, level = nearest(raised * inverse_s, 0, top), wl = w[e] * level;
            sum_ll += wl * level;
            sum_xl += wl * raised;
        }
        try_halves({half(sum_xl * inverse(sum_ll)), m});
    }
    return best;
}

// The same without importance, where llama.cpp does not search and there is time for two fits only. llama.cpp's range,
// rounded to half precision, is used if it is closer to the first fit than the rounded second fit is to the second fit.
template <int elements, int top>
Affine hurried_affine_block(const Lanes* x) {
    const AffineFit<elements, top, true, Ones> fit(x, Ones());
    const Lanes step = (fit.highest - fit.lowest) / Lanes(float(top)), offset = Lanes(0.0f) - fit.lowest;
    const auto round_up = [](const Lanes& y) { return nearest_or_above(y); };
    const auto first = fit(offset, inverse(step), round_up), second = fit({first.s, first.m});
    const Affine theirs{half(step), half(offset)};
    Affine ours;
    ours.m = half(second.m);
    ours.s = half(second.s + (ours.m - second.m) * second.sum_l * inverse(second.sum_ll));
    const Mask lucky = fit.excess(first, theirs) < fit.excess(second, ours);
    return {select(lucky, theirs.s, ours.s), select(lucky, theirs.m, ours.m)};
}

template <int elements, int sub_blocks>
struct SuperAffine {
    PerSuperBlock<sub_blocks> d, d_min;
    Lanes scales, mins;
    Lanes levels[elements];
};

template <int elements, int top, int sub_blocks, int largest, class Weights>
SuperAffine<elements, sub_blocks> search_super_affine(const Lanes* x, const Weights& w, double spacing,
                                                        const llama_cpp::SuperBlocks<sub_blocks>& theirs) {
    using Scalars = PerSuperBlock<sub_blocks>;
    const auto level = [&](int e, const Lanes& m, const Lanes& inverse_s) {
        return nearest((x[e] + m) * inverse_s, 0, top);
    };

    const Affine alone = search_affine<elements, top, false, SubBlockEnds<top>>(x, w, theirs.alone);
    const Lanes inverse_s_alone = inverse(alone.s);
    Lanes sum_w = 0.0f, sum_l = 0.0f, sum_ll = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes l = level(e, alone.m, inverse_s_alone), wl = w[e] * l;
        sum_w += w[e];
        sum_l += wl;
        sum_ll += wl * l;
    }
    const Lanes slope = sum_l * inverse(sum_w);
    const Lanes curvature = sum_ll - sum_l * slope;

    // 2. Rate the pairs (d, d_min) with the parabolas. Here a lane is a candidate for d, then for d_min.
    const Lanes shrink = shrinking<largest>(spacing);
    Scalars d_of[kRatedTickets], d_min_of[kRatedTickets];
    for (int b = 0; b < Scalars::count; ++b) {
        const Lanes d = half(Lanes(largest_of<sub_blocks>(alone.s, b)) * shrink);
        const Lanes d_min = half(Lanes(largest_of<sub_blocks>(alone.m, b)) * shrink);
        const Lanes inverse_d = inverse(d), inverse_d_min = inverse(d_min);
        Lanes rating[kPositions];
        for (auto& r : rating) r = 0.0f;
        for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
            const Lanes s(alone.s[j]);
            const Lanes shift = d * nearest(s * inverse_d, 0, largest) - s;
            const Lanes wanted_m = Lanes(alone.m[j]) + Lanes(slope[j]) * shift;
            const Lanes cost = shift * shift * Lanes(curvature[j]);
            const Lanes weight(sum_w[j]);
            for (int k = 0; k < kPositions; ++k) {
                const Lanes wanted(wanted_m[k]);
                const Lanes miss = d_min * nearest(wanted * inverse_d_min, 0, largest) - wanted;
                rating[k] += Lanes(cost[k]) + weight * miss * miss;
            }
        }
        constexpr int each = kPositions / kRatedTickets;
        for (int ticket = 0; ticket < kRatedTickets; ++ticket) {
            int best_k = ticket * each, best_lane = 0;
            for (int k = ticket * each; k < (ticket + 1) * each; ++k)
                for (int lane = 0; lane < kLanes; ++lane)
                    if (rating[k][lane] < rating[best_k][best_lane]) best_k = k, best_lane = lane;
            d_of[ticket][b] = d[best_k];
            d_min_of[ticket][b] = d_min[best_lane];
        }
    }

    // 3. Compare the candidates by their true error.
    SuperAffine<elements, sub_blocks> best;
    best.scales = best.mins = 0.0f;
    Scalars least;
    for (int b = 0; b < Scalars::count; ++b) best.d[b] = best.d_min[b] = 0.0f, least[b] = kInfinity;
    for (int ticket = 0; ticket <= kRatedTickets; ++ticket) {
        const bool is_theirs = ticket == kRatedTickets;
        Scalars d = is_theirs ? theirs.d : d_of[ticket], d_min = is_theirs ? theirs.d_min : d_min_of[ticket];
        Lanes d_lanes = spread(d), d_min_lanes = spread(d_min);
        Lanes scales = nearest(alone.s * inverse(d_lanes), 0, largest);
        const Lanes wanted_m = alone.m + slope * (d_lanes * scales - alone.s);
        Lanes mins = nearest(wanted_m * inverse(d_min_lanes), 0, largest);
        if (is_theirs) scales = theirs.scales, mins = theirs.mins;
        for (const bool last : {false, true}) {
            // the nine (scale, min) around the current ones
            Lanes least_here = kInfinity, best_scales = scales, best_mins = mins;
            for (int scale_step = -1; scale_step <= 1; ++scale_step) {
                const Lanes scale = clip(scales + Lanes(float(scale_step)), 0.0f, float(largest));
                const Lanes s = d_lanes * scale, inverse_s = inverse(s);
                for (int min_step = -1; min_step <= 1; ++min_step) {
                    const Lanes offset = clip(mins + Lanes(float(min_step)), 0.0f, float(largest));
                    const Lanes m = d_min_lanes * offset;
                    Lanes left = 0.0f;
                    for (int e = 0; e < elements; ++e) {
                        const Lanes residual = x[e] - (s * level(e, m, inverse_s) - m);
                        left += w[e] * residual * residual;
                    }
                    const Mask better = left < least_here;
                    least_here = select(better, left, least_here);
                    best_scales = select(better, scale, best_scales);
                    best_mins = select(better, offset, best_mins);
                }
            }
            scales = best_scales;
            mins = best_mins;

            const Scalars left = gathered<sub_blocks>(least_here);
            Scalars better;
            for (int b = 0; b < Scalars::count; ++b) {
                better[b] = left[b] < least[b];
                if (better[b]) least[b] = left[b], best.d[b] = d[b], best.d_min[b] = d_min[b];
            }
            const Mask better_lanes = spread(better) > Lanes(0.0f);
            best.scales = select(better_lanes, scales, best.scales);
            best.mins = select(better_lanes, mins, best.mins);
            if (last) break;

            // fit d and d_min to the whole super-block by least squares
            const Lanes m = d_min_lanes * mins, inverse_s = inverse(d_lanes * scales);
            Lanes gg = 0.0f, gh = 0.0f, hh = 0.0f, xg = 0.0f, xh = 0.0f;
            for (int e = 0; e < elements; ++e) {
                const Lanes g = scales * level(e, m, inverse_s), wg = w[e] * g, wh = w[e] * mins;
                gg += wg * g;
                gh += wg * mins;
                hh += wh * mins;
                xg += wg * x[e];
                xh += wh * x[e];
            }
            const Scalars sum_gg = gathered<sub_blocks>(gg), sum_gh = gathered<sub_blocks>(gh),
                          sum_hh = gathered<sub_blocks>(hh), sum_xg = gathered<sub_blocks>(xg),
                          sum_xh = gathered<sub_blocks>(xh);
            for (int b = 0; b < Scalars::count; ++b) {
                const float determinant = sum_gg[b] * sum_hh[b] - sum_gh[b] * sum_gh[b];
                const float inverse_determinant = inverse(determinant);
                const float d_fit = (sum_xg[b] * sum_hh[b] - sum_xh[b] * sum_gh[b]) * inverse_determinant;
                const float d_min_fit = (sum_xg[b] * sum_gh[b] - sum_xh[b] * sum_gg[b]) * inverse_determinant;
                const float d_alone = (sum_xg[b] + d_min[b] * sum_gh[b]) * inverse(sum_gg[b]);
                if (determinant > 1e-3f * (sum_gg[b] * sum_hh[b]) && d_fit > 0 && d_min_fit > 0) {
                    d[b] = half(d_fit);
                    d_min[b] = half(d_min_fit);
                } else if (d_alone > 0) {
                    d[b] = half(d_alone);
                }
            }
            d_lanes = spread(d);
            d_min_lanes = spread(d_min);
        }
    }
    const Lanes m = spread(best.d_min) * best.mins, inverse_s = inverse(spread(best.d) * best.scales);
    for (int e = 0; e < elements; ++e) best.levels[e] = level(e, m, inverse_s);
    return best;
}

}  // namespace thriftbit::THRIFTBIT_ISA

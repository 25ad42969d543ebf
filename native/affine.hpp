// The twin of src/thriftbit/formats/affine.py, where the search is explained.
#pragma once

#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kAffineTickets = 4;

// Where a grid puts an end of the range, in steps inward from the outermost weight: twins of the lists in affine.py.
template <int top>
struct SubBlockEnds {
    static constexpr int count = top == 3 ? 6 : 8;
    static constexpr double first = top == 3 ? -0.6 : top == 15 ? -1.5 : -2.0;
    static constexpr double last = top == 3 ? 0.9 : top == 15 ? 1.5 : 2.0;
    static constexpr double at(int k) { return first + k * (last - first) / (count - 1); }
};

template <int top>
struct BlockEnds {
    static constexpr int count = 11;
    static constexpr double reach = top == 15 ? 1.5 : 2.0;
    static constexpr double at(int k) { return -reach + k * (2 * reach) / (count - 1); }
};

struct OuterEnds {
    static constexpr int count = 1;
    static constexpr double at(int) { return 0; }
};

struct Affine {
    Lanes s, m;
};

template <int elements, int top, bool m_may_be_negative, class Ends, int fits, class Weights>
Affine search_affine(const Lanes* x, const Weights& w) {
    const Lanes sum_w = total<elements>([&](int e) { return w[e]; });
    const Lanes inverse_sum_w = inverse(sum_w);
    const Lanes mean = total<elements>([&](int e) { return w[e] * x[e]; }) * inverse_sum_w;
    Lanes centred[elements];
    Lanes lowest = x[0], highest = x[0];
    for (int e = 0; e < elements; ++e) {
        centred[e] = x[e] - mean;
        lowest = minimum(lowest, x[e]);
        highest = maximum(highest, x[e]);
    }
    if (!m_may_be_negative) lowest = minimum(lowest, 0.0f);

    struct Fit {
        Lanes s, m, gain;
    };
    const auto fit = [&](const Lanes& offset, const Lanes& factor) {  // rounds (x + offset) * factor, then fits
        Lanes sum_l = 0.0f, sum_ll = 0.0f, sum_xl = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes level = nearest((x[e] + offset) * factor, 0, top);
            const Lanes wl = w[e] * level;
            sum_l += wl;
            sum_ll += wl * level;
            sum_xl += wl * centred[e];
        }
        const Lanes mean_level = sum_l * inverse_sum_w;
        Fit found;
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
    };

    const Lanes step = (highest - lowest) * float(1.0 / top);
    const Lanes inverse_step = inverse(step);
    Affine best{0.0f, m_may_be_negative ? Lanes(0.0f) - mean : maximum(Lanes(0.0f) - mean, 0.0f)};
    Lanes best_gain = -kInfinity;
    for (int i = 0; i < Ends::count; ++i) {
        const Lanes offset = Lanes(0.0f) - (lowest + Lanes(float(Ends::at(i))) * step);
        for (int j = 0; j < Ends::count; ++j) {
            const double steps = top - Ends::at(i) - Ends::at(j);
            Fit found = fit(offset, inverse_step * Lanes(float(top / steps)));
            for (int again = 1; again < fits; ++again) found = fit(found.m, inverse(found.s));
            const Mask better = (found.gain > best_gain) & (found.s > Lanes(0.0f));
            best.s = select(better, found.s, best.s);
            best.m = select(better, found.m, best.m);
            best_gain = select(better, found.gain, best_gain);
        }
    }
    return best;
}

// s in half precision, fitted to an m that is in half precision already.
template <int elements, int top, class Weights>
Lanes fit_scale(const Lanes* x, const Weights& w, const Lanes& s, const Lanes& m) {
    const Lanes inverse_s = inverse(s);
    Lanes sum_ll = 0.0f, sum_xl = 0.0f;
    for (int e = 0; e < elements; ++e) {
        const Lanes raised = x[e] + m, level = nearest(raised * inverse_s, 0, top), wl = w[e] * level;
        sum_ll += wl * level;
        sum_xl += wl * raised;
    }
    return half(sum_xl * inverse(sum_ll));
}

// s and m in half precision: m the nearest or one of its neighbours, s fitted to it.
template <int elements, int top, class Weights>
Affine round_affine(const Lanes* x, const Weights& w, const Affine& found) {
    Affine best{half(found.s), half(found.m)};
    const auto error_of = [&](const Affine& halves) {
        const Lanes inverse_s = inverse(halves.s);
        Lanes left = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes level = nearest((x[e] + halves.m) * inverse_s, 0, top);
            const Lanes residual = x[e] - (halves.s * level - halves.m);
            left += w[e] * residual * residual;
        }
        return left;
    };
    Lanes least = error_of(best);
    const Lanes nearest_m = best.m;
    for (int step = -1; step <= 1; ++step) {
        Affine now;
        now.m = half(nearest_m * Lanes(float(1 + step / 2048.0)));
        now.s = fit_scale<elements, top>(x, w, found.s, now.m);
        const Lanes left = error_of(now);
        const Mask better = left < least;
        least = select(better, left, least);
        best.s = select(better, now.s, best.s);
        best.m = select(better, now.m, best.m);
    }
    return best;
}

template <int elements, int sub_blocks>
struct SuperAffine {
    PerSuperBlock<sub_blocks> d, d_min;
    Lanes scales, mins;
    Lanes levels[elements];
};

template <int elements, int top, int sub_blocks, int largest, class Weights>
SuperAffine<elements, sub_blocks> search_super_affine(const Lanes* x, const Weights& w, double spacing) {
    using Scalars = PerSuperBlock<sub_blocks>;
    const auto level = [&](int e, const Lanes& m, const Lanes& inverse_s) {
        return nearest((x[e] + m) * inverse_s, 0, top);
    };

    const Affine alone = search_affine<elements, top, false, SubBlockEnds<top>, 2>(x, w);
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

    // 2. rate the pairs (d, d_min) with the parabolas: here a lane is a position of d, then of d_min
    const Lanes shrink = shrinking<largest>(spacing);
    Scalars d_of[kAffineTickets], d_min_of[kAffineTickets];
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
        constexpr int each = kPositions / kAffineTickets;
        for (int ticket = 0; ticket < kAffineTickets; ++ticket) {
            int best_k = ticket * each, best_lane = 0;
            for (int k = ticket * each; k < (ticket + 1) * each; ++k)
                for (int lane = 0; lane < kLanes; ++lane)
                    if (rating[k][lane] < rating[best_k][best_lane]) best_k = k, best_lane = lane;
            d_of[ticket][b] = d[best_k];
            d_min_of[ticket][b] = d_min[best_lane];
        }
    }

    // 3. the true error
    SuperAffine<elements, sub_blocks> best;
    best.scales = best.mins = 0.0f;
    Scalars least;
    for (int b = 0; b < Scalars::count; ++b) best.d[b] = best.d_min[b] = 0.0f, least[b] = kInfinity;
    for (int ticket = 0; ticket < kAffineTickets; ++ticket) {
        Scalars d = d_of[ticket], d_min = d_min_of[ticket];
        Lanes d_lanes = spread(d), d_min_lanes = spread(d_min);
        Lanes scales = nearest(alone.s * inverse(d_lanes), 0, largest);
        const Lanes wanted_m = alone.m + slope * (d_lanes * scales - alone.s);
        Lanes mins = nearest(wanted_m * inverse(d_min_lanes), 0, largest);
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

            // refit d and d_min to the whole super-block by least squares
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

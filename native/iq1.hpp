// The search of IQ1_S and IQ1_M: the fast version of tests/conformance/specification/iq1.py.
//
// A weight is d·scale·(digit + shift): scale is an odd number up to 15 for a sub-block, the shift is ±1/8 for a shift
// block, and the digits of eight weights are a codeword. First every sub-block finds the scale that fits it best alone,
// with any digits. d is the candidate that comes near most of these. Then three scales around the nearest, both shifts
// and all codewords are compared by their true error. At last d is fitted to the super-block.
#pragma once

#include "blocks.hpp"
#include "ternary_codewords.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr float kShift = 1.0f / 8;

// A later start has to explain this much more. Otherwise small errors of the sums would decide between equals, such as
// all digits one and all digits zero, which with the shift is a scale nine times as large.
constexpr float kClearly = 1.002f;

// elements: weights in a sub-block. shift_blocks: in a sub-block.
template <int elements, int shift_blocks>
struct IQ1 {
    static constexpr int sub_blocks = 256 / elements, super_blocks = kLanes / sub_blocks;
    static constexpr int group = TernaryCodewords::group, groups = elements / group;
    static constexpr int in_shift_block = groups / shift_blocks;
    static constexpr int scales = 3;  // compared around the nearest

    struct Found {
        PerSuperBlock<sub_blocks> d;
        Lanes scale;                // place in 1, 3, 5, … 15
        Lanes shift[shift_blocks];  // 1 for plus, 0 for minus
        Lanes pattern[groups];
    };

    // Sub-blocks without importance are fitted as if all their weights counted alike. They do not count for d, unless
    // the whole super-block is so.
    static Found search(const TernaryCodewords& codewords, const Lanes* x, const Lanes* importance) {
        const Lanes sum = total<elements>([&](int e) { return importance[e]; });
        const Mask some = sum > Lanes(0.0f);
        Lanes w[elements];
        for (int e = 0; e < elements; ++e) w[e] = select(some, importance[e], 1.0f);
        const Lanes counts = select(some, 1.0f, 0.0f);
        const auto counting = gathered<sub_blocks>(counts);
        return search(codewords, x, w, select(spread(counting) > Lanes(0.0f), counts, 1.0f));
    }

    static Found search(const TernaryCodewords& codewords, const Lanes* x, const Ones& ones) {
        return search(codewords, x, ones, 1.0f);
    }

  private:
    struct Alone {
        Lanes s, curvature;
    };

    template <class Weights>
    static Found search(const TernaryCodewords& codewords, const Lanes* x, const Weights& w, const Lanes& counts) {
        const Alone alone = scale_alone(x, w);
        const Alone counted{alone.s * counts, alone.curvature * counts};
        Found found;
        for (int b = 0; b < super_blocks; ++b) found.d[b] = best_d(counted, b);
        choose_codes(codewords, x, w, alone.s, found);
        fit_d(x, w, counts, found);
        return found;
    }

    static Lanes odd(const Lanes& place) { return place + place + Lanes(1.0f); }
    static Lanes nearest_place(const Lanes& s, const Lanes& inverse_d) {
        return nearest((s * inverse_d - Lanes(1.0f)) * Lanes(0.5f), 0, 7);
    }

    // The scale that fits each sub-block best, if its digits are rounded freely.
    template <class Weights>
    static Alone scale_alone(const Lanes* x, const Weights& w) {
        const Lanes power = total<elements>([&](int e) { return w[e] * x[e] * x[e]; });
        const Lanes weight = total<elements>([&](int e) { return Lanes(w[e]); });
        const Lanes size = root(power * inverse(weight));
        Alone best{0.0f, weight * Lanes(kShift * kShift)};  // for digits that are all zero
        Lanes most = 0.0f;
        const auto fit = [&](const Lanes& start, float by) {
            Lanes sum_qx, sum_qq;
            rounded_sums(x, w, start, sum_qx, sum_qq);
            const Lanes s = maximum(sum_qx * inverse(sum_qq), 0.0f), gain = s * sum_qx;
            const Mask better = gain > most * Lanes(by);
            most = select(better, gain, most);
            best.s = select(better, s, best.s);
            best.curvature = select(better, sum_qq, best.curvature);
        };
        for (const float start : {0.8f, 1.0f, 1.3f, 1.7f, 2.2f, 3.0f}) fit(size * Lanes(start), kClearly);
        fit(best.s, 1.0f);
        return best;
    }

    // The sums of w·q·x and w·q², with q the rounded digits plus the better shift of each shift block.
    template <class Weights>
    static void rounded_sums(const Lanes* x, const Weights& w, const Lanes& s, Lanes& sum_qx, Lanes& sum_qq) {
        const Lanes inverse_s = inverse(s);
        for (int block = 0; block < shift_blocks; ++block) {
            Lanes qx[2] = {0.0f, 0.0f}, qq[2] = {0.0f, 0.0f};
            for (int i = 0; i < in_shift_block * group; ++i) {
                const int e = block * in_shift_block * group + i;
                const Lanes y = x[e] * inverse_s;
                for (int plus = 0; plus < 2; ++plus) {
                    const Lanes shift = plus ? kShift : -kShift;
                    const Lanes q = nearest(y - shift, -1, 1) + shift, wq = w[e] * q;
                    qx[plus] += wq * x[e];
                    qq[plus] += wq * q;
                }
            }
            const Mask plus = s * qq[1] - (qx[1] + qx[1]) < s * qq[0] - (qx[0] + qx[0]);
            const Lanes chosen_qx = select(plus, qx[1], qx[0]), chosen_qq = select(plus, qq[1], qq[0]);
            sum_qx = block ? sum_qx + chosen_qx : chosen_qx;
            sum_qq = block ? sum_qq + chosen_qq : chosen_qq;
        }
    }

    // Where d is looked for, as a share of the largest scale: finely where the largest scale is about 15 d, and at a few
    // larger ones for blocks so small that half precision has few numbers there.
    static constexpr int candidates = 2 * kLanes, fine_candidates = 24;
    static constexpr double candidate(int k) {
        constexpr double larger[candidates - fine_candidates] = {2, 2.5, 3, 4, 5, 7.5, 10, 15};
        return (k < fine_candidates ? 0.8 + 0.04 * k : larger[k - fine_candidates]) / 15;
    }

    // Candidates for d are lanes here.
    static float best_d(const Alone& alone, int b) {
        const float largest = largest_of<sub_blocks>(alone.s, b);
        float best = 0.0f, least = kInfinity;
        for (int first = 0; first < candidates; first += kLanes) {
            Lanes factors;
            for (int k = 0; k < kLanes; ++k) factors[k] = float(candidate(first + k));
            const Lanes d = half(Lanes(largest) * factors), inverse_d = inverse(d);
            Lanes rating = 0.0f;
            for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
                const Lanes s(alone.s[j]);
                const Lanes off = d * odd(nearest_place(s, inverse_d)) - s;
                rating += off * off * Lanes(alone.curvature[j]);
            }
            for (int k = 0; k < kLanes; ++k)
                if (rating[k] < least) least = rating[k], best = d[k];
        }
        return best;
    }

    // For given d: the scale among three, the shifts and the codewords with the least error.
    //
    // An error is what the cheapest digits leave, plus what the nearest codewords add. The first part is known at once;
    // the second is found for the scale and shifts that look best, until nothing that is not fully known looks better.
    template <class Weights>
    static void choose_codes(const TernaryCodewords& codewords, const Lanes* x, const Weights& w, const Lanes& alone,
                             Found& found) {
        const Lanes d = spread(found.d);
        const Lanes first = clip(nearest_place(alone, inverse(d)) - Lanes(1.0f), 0.0f, float(8 - scales));
        Lanes s[scales], least[scales][shift_blocks][2], error[scales][shift_blocks][2], known[scales][shift_blocks][2];
        Lanes patterns[scales][2][groups];
        for (int k = 0; k < scales; ++k) {
            s[k] = d * odd(first + Lanes(float(k)));
            for (int block = 0; block < shift_blocks; ++block)
                for (int plus = 0; plus < 2; ++plus) {
                    least[k][block][plus] = error[k][block][plus] = least_error(x, w, s[k], plus, block);
                    known[k][block][plus] = 0.0f;
                    for (int g = 0; g < groups; ++g) patterns[k][plus][g] = 0.0f;
                }
        }
        for (;;) {
            Lanes place, plus[shift_blocks], all_known = 1.0f;
            looks_best(error, place, plus);
            const Lanes now = pick(s, place);
            Lanes seen[shift_blocks];
            for (int block = 0; block < shift_blocks; ++block) {
                seen[block] = pick(known, place, plus[block], block);
                all_known = minimum(all_known, seen[block]);
            }
            if (!any(all_known < Lanes(1.0f))) {
                found.scale = first + place;
                for (int block = 0; block < shift_blocks; ++block) {
                    found.shift[block] = plus[block];
                    for (int i = 0; i < in_shift_block; ++i) {
                        const int g = block * in_shift_block + i;
                        Lanes chosen = patterns[0][0][g];
                        for (int k = 0; k < scales; ++k)
                            for (int p = 0; p < 2; ++p)
                                chosen = select(is(place, k) & is(plus[block], p), patterns[k][p][g], chosen);
                        found.pattern[g] = chosen;
                    }
                }
                return;
            }
            for (int block = 0; block < shift_blocks; ++block) {
                const Mask unknown = seen[block] < Lanes(1.0f);
                const Lanes shift = now * select(is(plus[block], 1), kShift, -kShift);
                TernaryCodewords::Nearest nearest[in_shift_block];
                Lanes added = 0.0f;
                for (int i = 0; i < in_shift_block; ++i) {
                    const int e = (block * in_shift_block + i) * group;
                    nearest[i] = codewords.nearest(costs(x + e, weights_from(w, e), now, shift), unknown);
                    added = i ? added + nearest[i].added : nearest[i].added;
                }
                for (int k = 0; k < scales; ++k)
                    for (int p = 0; p < 2; ++p) {
                        const Mask here = unknown & is(place, k) & is(plus[block], p);
                        error[k][block][p] = select(here, least[k][block][p] + added, error[k][block][p]);
                        known[k][block][p] = select(here, 1.0f, known[k][block][p]);
                        for (int i = 0; i < in_shift_block; ++i) {
                            Lanes& pattern = patterns[k][p][block * in_shift_block + i];
                            pattern = select(here, nearest[i].pattern, pattern);
                        }
                    }
            }
        }
    }

    static Mask is(const Lanes& value, int number) { return value == Lanes(float(number)); }

    static Lanes pick(const Lanes* values, const Lanes& place) {
        Lanes picked = values[0];
        for (int k = 1; k < scales; ++k) picked = select(is(place, k), values[k], picked);
        return picked;
    }

    static Lanes pick(const Lanes (*values)[shift_blocks][2], const Lanes& place, const Lanes& plus, int block) {
        Lanes each[scales];
        for (int k = 0; k < scales; ++k) each[k] = select(is(plus, 1), values[k][block][1], values[k][block][0]);
        return pick(each, place);
    }

    static void looks_best(const Lanes (*error)[shift_blocks][2], Lanes& place, Lanes* plus) {
        Lanes best = kInfinity;
        for (int k = 0; k < scales; ++k) {
            Lanes plus_here[shift_blocks], sum;
            for (int block = 0; block < shift_blocks; ++block) {
                const Lanes* both = error[k][block];
                plus_here[block] = select(both[1] < both[0], 1.0f, 0.0f);
                const Lanes lower = minimum(both[0], both[1]);
                sum = block ? sum + lower : lower;
            }
            const Mask better = k ? sum < best : magnitude(sum) >= Lanes(0.0f);
            best = select(better, sum, best);
            place = select(better, float(k), place);
            for (int block = 0; block < shift_blocks; ++block) plus[block] = select(better, plus_here[block], plus[block]);
        }
    }

    static const Lanes* weights_from(const Lanes* w, int e) { return w + e; }
    static Ones weights_from(const Ones& ones, int) { return ones; }

    // What is left of a shift block with the cheapest digits.
    template <class Weights>
    static Lanes least_error(const Lanes* x, const Weights& w, const Lanes& s, int plus, int block) {
        const Lanes shift = s * Lanes(plus ? kShift : -kShift);
        Lanes sum;
        for (int i = 0; i < in_shift_block; ++i) {
            const int first = (block * in_shift_block + i) * group;
            const Lanes of_group = total<group>([&](int e) {
                const Lanes size = magnitude(x[first + e] - shift), residual = minimum(size, magnitude(size - s));
                return w[first + e] * residual * residual;
            });
            sum = i ? sum + of_group : of_group;
        }
        return sum;
    }

    template <class Weights>
    static TernaryCodewords::Costs costs(const Lanes* x, const Weights& w, const Lanes& s, const Lanes& shift) {
        TernaryCodewords::Costs costs;
        for (int e = 0; e < group; ++e) {
            const Lanes y = x[e] - shift, below = y + s, above = y - s;
            Lanes left[3] = {w[e] * below * below, w[e] * y * y, w[e] * above * above};
            const Lanes least = minimum(minimum(left[0], left[1]), left[2]);
            for (auto& cost : left) cost = cost - least;
            const Mask not_first = left[0] > Lanes(0.0f), not_second = left[1] > Lanes(0.0f);
            costs.digit[e] = select(not_first, select(not_second, 2.0f, 1.0f), 0.0f);
            costs.added[e][0] = select(not_first, select(not_second, left[0], left[2]), left[1]);
            costs.added[e][1] = select(not_first, select(not_second, left[1], left[0]), left[2]);
        }
        return costs;
    }

    // Least squares for d, with everything else chosen.
    template <class Weights>
    static void fit_d(const Lanes* x, const Weights& w, const Lanes& counts, Found& found) {
        Lanes gx = 0.0f, gg = 0.0f;
        for (int g = 0; g < groups; ++g) {
            const Lanes shift = select(is(found.shift[g / in_shift_block], 1), kShift, -kShift);
            Lanes rest = found.pattern[g];
            for (int i = 0; i < group; ++i) {
                const int e = g * group + i;
                const Lanes quotient = floor_of(rest * Lanes(1.0f / 3) + Lanes(1.0f / 16));
                const Lanes digit = rest - quotient * Lanes(3.0f) - Lanes(1.0f);
                rest = quotient;
                const Lanes level = odd(found.scale) * (digit + shift), wg = w[e] * level;
                gx += wg * x[e];
                gg += wg * level;
            }
        }
        const auto sum_gx = gathered<sub_blocks>(gx * counts), sum_gg = gathered<sub_blocks>(gg * counts);
        for (int b = 0; b < super_blocks; ++b) {
            const float fitted = sum_gx[b] * inverse(sum_gg[b]);
            found.d[b] = half(fitted > 0 ? fitted : 0.0f);
        }
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

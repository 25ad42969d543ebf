// The search for super-blocks of the formats IQ2_* and IQ3_*: x ≈ ± d·scale·codeword, with one d in half precision, and
// odd multiples of `unit` for scales.
//
//   struct Format {
//       static constexpr int block_size, block_bytes, elements (of a sub-block), group, levels;
//       static constexpr bool even_signs;  // in every eight weights an even number is minus
//       static constexpr float unit;
//       static constexpr int fits;  // how often a sub-block's own scale is fitted
//       static const Codewords<group, levels>& codewords();
//       // llama.cpp's settings (neighbours.hpp), and
//       static const Neighbours<group, levels>& neighbours();
//       static constexpr float their_factor;  // of d
//       static Lanes their_weight(x, importance, mean_square);  // of a weight
//       static TheirSubBlocks<Format> their_sub_blocks(x, w);
//   };
//
// For a given scale the exactly best codewords are found (codewords.hpp). So each sub-block is fitted by turns: the best
// codewords, then the scale by least squares. Candidates for d are rated with parabolas around these scales. At the best
// d each sub-block tries the scale next to its own and its neighbours with the true error; then d is fitted to the
// super-block by least squares, and the scales are tried again. The result of llama.cpp's search is kept where it is
// better. tests/conformance/specification/codebook_blocks.py is the same in numpy.
//
// Sub-blocks without any importance are fitted as if all their weights counted alike, and do not count for d.
#pragma once

#include "blocks.hpp"
#include "codewords.hpp"
#include "neighbours.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kSignGroup = 8;
constexpr int kScales = 16;

// What sixteen sub-blocks hold. scale: its place, so the multiple of d is unit · (2·scale + 1). flipped: in each eight
// weights, the one whose sign is not the weight's, or -1. inverted: 1 where all signs are inverted.
template <class Format>
struct SubBlocks {
    static constexpr int groups = Format::elements / Format::group, sign_groups = Format::elements / kSignGroup;
    Lanes scale, inverted = 0.0f, flipped[sign_groups];
    uint16_t codes[groups][kLanes];

    void keep_where(const Mask& better, const SubBlocks& other) {
        const Lanes take = select(better, 1.0f, 0.0f);
        scale = select(better, other.scale, scale);
        inverted = select(better, other.inverted, inverted);
        for (int g = 0; g < sign_groups; ++g) flipped[g] = select(better, other.flipped[g], flipped[g]);
        for (int g = 0; g < groups; ++g)
            for (int lane = 0; lane < kLanes; ++lane)
                if (take[lane] != 0.0f) codes[g][lane] = other.codes[g][lane];
    }
};

template <class Format>
struct SuperBlocks {
    PerSuperBlock<Format::block_size / Format::elements> d;
    SubBlocks<Format> parts;
};

// The first of eight values that is the least, where `odd`, else -1.
template <class Value>
inline Lanes least_place(const Mask& odd, const Value& value) {
    Lanes least = value(0), place = 0.0f;
    for (int e = 1; e < kSignGroup; ++e) {
        const Lanes now = value(e);
        place = select(now < least, Lanes(float(e)), place);
        least = minimum(now, least);
    }
    return select(odd, place, -1.0f);
}

template <class Format>
class CodebookSearch {
    static constexpr int elements = Format::elements, group = Format::group, groups = elements / group;
    static constexpr int sub_blocks = Format::block_size / elements, sign_groups = elements / kSignGroup;
    static constexpr bool flips_with_codes = Format::even_signs && group == kSignGroup;
    using Scalars = PerSuperBlock<sub_blocks>;
    using Parts = SubBlocks<Format>;

    const Lanes *x_, *w_;
    Lanes share_;
    Lanes sizes_[elements], flip_cost_[elements];
    Mask odd_[sign_groups];
    Parts fixed_signs_;  // the signs that do not depend on the codewords

    // The weights as the codewords are to match them: sizes, negative where a sign is wrong.
    void signed_sizes(const Parts& parts, Lanes* y) const {
        const Mask inverted = parts.inverted > Lanes(0.0f);
        for (int e = 0; e < elements; ++e) {
            const Mask flip = parts.flipped[e / kSignGroup] == Lanes(float(e % kSignGroup));
            y[e] = select(flip, -sizes_[e], sizes_[e]);
            y[e] = select(inverted, -y[e], y[e]);
        }
    }

    // The best codewords at scale s; their cost.
    Lanes choose_codes(const Lanes& s, const Lanes* y, Parts& parts) const {
        Lanes scaled[Format::levels];
        for (int level = 0; level < Format::levels; ++level) scaled[level] = s * Lanes(Format::value(level));
        Lanes cost = 0.0f;
        for (int g = 0; g < groups; ++g) {
            const auto cost_of = [&](int e, int level) {
                const Lanes residual = y[g * group + e] - scaled[level];
                return w_[g * group + e] * residual * residual;
            };
            const auto flip_cost = [&](int e, int level) { return flip_cost_[g * group + e] * scaled[level]; };
            if constexpr (flips_with_codes) {
                cost += Format::codewords().nearest_with_odd_sign(cost_of, flip_cost, parts.codes[g]);
                Lanes v[group];
                Format::codewords().look_up(parts.codes[g], v);
                parts.flipped[g] = least_place(odd_[g], [&](int e) { return flip_cost_[g * group + e] * v[e]; });
            } else {
                cost += Format::codewords().nearest(cost_of, parts.codes[g]);
            }
        }
        return cost;
    }

    // The sums for least squares at given codewords: w·y·v and w·v·v.
    struct Sums {
        Lanes yv = 0.0f, vv = 0.0f;
        Lanes fit(const Lanes& otherwise) const {
            const Mask sensible = (vv > Lanes(0.0f)) & (yv > Lanes(0.0f));
            return select(sensible, yv / select(sensible, vv, 1.0f), otherwise);
        }
    };

    void codewords_of(const Parts& parts, Lanes* v) const {
        for (int g = 0; g < groups; ++g) Format::codewords().look_up(parts.codes[g], v + g * group);
    }

    Sums sums_of(const Parts& parts) const {
        Lanes y[elements], v[elements];
        signed_sizes(parts, y);
        codewords_of(parts, v);
        Sums sums;
        for (int e = 0; e < elements; ++e) {
            const Lanes wv = w_[e] * v[e];
            sums.yv += wv * y[e];
            sums.vv += wv * v[e];
        }
        return sums;
    }

    // d · scale
    static Lanes scales_of(const Lanes& d, const Lanes& scale) {
        return d * ((scale + scale + Lanes(1.0f)) * Lanes(Format::unit));
    }

    Scalars error_of(const Scalars& d, const Parts& parts) const {
        Lanes y[elements], v[elements];
        signed_sizes(parts, y);
        codewords_of(parts, v);
        const Lanes s = scales_of(spread(d), parts.scale);
        Lanes error = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes residual = y[e] - s * v[e];
            error += w_[e] * residual * residual;
        }
        return gathered<sub_blocks>(error * share_);
    }

    static Lanes nearest_scale(const Lanes& s, const Lanes& d) {
        return nearest(Lanes(0.5f) * (s * inverse(d * Lanes(Format::unit))) - Lanes(0.5f), 0, kScales - 1);
    }

    // Of sixteen candidates around the d that makes the largest scale the last one, the best by parabolas.
    Scalars rated_d(const Lanes& alone, const Lanes& curvature) const {
        Lanes factors;
        for (int k = 0; k < kLanes; ++k) factors[k] = float(1 / (Format::unit * (2 * kScales - 1) * (0.88 + 0.016 * k)));
        Scalars d;
        for (int b = 0; b < Scalars::count; ++b) {
            const Lanes candidates = half(Lanes(largest_of<sub_blocks>(alone, b)) * factors);  // a lane is a candidate
            Lanes rating = 0.0f;
            for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
                const Lanes shift = scales_of(candidates, nearest_scale(Lanes(alone[j]), candidates)) - Lanes(alone[j]);
                rating += shift * shift * Lanes(curvature[j]);
            }
            int best = 0;
            for (int k = 1; k < kLanes; ++k)
                if (rating[k] < rating[best]) best = k;
            d[b] = candidates[best];
        }
        return d;
    }

    // At the given d: the best of the scales around the nearest to s, with the best codewords of each.
    Parts best_scales(const Scalars& d, const Lanes& s, const Lanes* y, int reach) const {
        const Lanes d_lanes = spread(d), middle = nearest_scale(s, d_lanes);
        Parts best = fixed_signs_;
        Lanes least = kInfinity;
        for (int step = -reach; step <= reach; ++step) {
            Parts parts = fixed_signs_;
            parts.scale = clip(middle + Lanes(float(step)), 0.0f, float(kScales - 1));
            const Lanes cost = choose_codes(scales_of(d_lanes, parts.scale), y, parts);
            best.keep_where(cost < least, parts);
            least = minimum(cost, least);
        }
        return best;
    }

    // llama.cpp's choice, and in `alone` the scales before they became multiples of d.
    SuperBlocks<Format> theirs(const Lanes* raw_w, const Lanes& mean_square, Lanes& alone) const {
        Lanes w[elements], y[elements];
        for (int e = 0; e < elements; ++e) w[e] = Format::their_weight(x_[e], raw_w ? raw_w + e : nullptr, mean_square);
        SuperBlocks<Format> found;
        Parts& parts = found.parts;
        for (int g = 0; g < sign_groups; ++g)
            parts.flipped[g] = least_place(odd_[g], [&](int e) {
                const int i = g * kSignGroup + e;
                return w[i] * x_[i] * x_[i];
            });
        signed_sizes(parts, y);
        const TheirSubBlocks<Format> each = Format::their_sub_blocks(y, w);
        alone = each.scale;
        parts.inverted = each.inverted;
        std::memcpy(parts.codes, each.codes, sizeof parts.codes);
        Scalars step;
        for (int b = 0; b < Scalars::count; ++b) {
            step[b] = largest_of<sub_blocks>(alone, b) / 31.0f;
            found.d[b] = half(step[b] * Format::their_factor);
        }
        const Lanes factor = Lanes(1.0f) / spread(step);
        parts.scale = nearest(Lanes(0.5f) * (factor * alone - Lanes(1.0f)), 0, kScales - 1);
        parts.scale = select(spread(step) > Lanes(0.0f), parts.scale, 0.0f);
        return found;
    }
  public:
    // raw_w: importance, or null. w: the same with ones in sub-blocks without any.
    CodebookSearch(const Lanes* x, const Lanes* w, const Lanes& share) : x_(x), w_(w), share_(share) {
        for (int e = 0; e < elements; ++e) sizes_[e] = magnitude(x[e]);
        for (int g = 0; g < sign_groups; ++g) {
            Lanes sign = 1.0f;
            for (int e = 0; e < kSignGroup; ++e)
                sign = sign * select(x[g * kSignGroup + e] < Lanes(0.0f), -1.0f, 1.0f);
            odd_[g] = sign < Lanes(Format::even_signs ? 0.0f : -2.0f);
            for (int e = 0; e < kSignGroup; ++e) {
                const int i = g * kSignGroup + e;
                flip_cost_[i] = select(odd_[g], Lanes(4.0f) * w[i] * sizes_[i], 0.0f);
            }
            fixed_signs_.flipped[g] =
                flips_with_codes ? Lanes(-1.0f) : least_place(odd_[g], [&](int e) { return flip_cost_[g * kSignGroup + e]; });
        }
    }

    SuperBlocks<Format> search(const Lanes* raw_w, const Lanes& mean_square) const {
        Lanes alone;
        SuperBlocks<Format> best = theirs(raw_w, mean_square, alone);
        Scalars least = error_of(best.d, best.parts);

        Lanes y[elements];
        signed_sizes(fixed_signs_, y);
        Lanes largest = sizes_[0];
        for (int e = 1; e < elements; ++e) largest = maximum(largest, sizes_[e]);
        Lanes s = select(alone > Lanes(0.0f), alone, largest * Lanes(1.0f / (2 * Format::levels - 1))) * Lanes(Format::unit);
        Lanes curvature = 0.0f;
        for (int fit = 0; fit < Format::fits; ++fit) {
            Parts parts = fixed_signs_;
            choose_codes(s, y, parts);
            const Sums sums = sums_of(parts);
            s = sums.fit(s);
            curvature = sums.vv;
        }
        Scalars d = rated_d(s, curvature * share_);
        for (int pass = 0; pass < 2; ++pass) {
            const Parts parts = best_scales(d, s, y, pass ? Format::last_reach : 1);
            const Scalars error = error_of(d, parts);
            Scalars better;
            for (int b = 0; b < Scalars::count; ++b) {
                better[b] = error[b] < least[b];
                if (better[b]) least[b] = error[b], best.d[b] = d[b];
            }
            best.parts.keep_where(spread(better) > Lanes(0.0f), parts);
            if (pass) break;
            const Sums sums = sums_of(parts);
            s = sums.fit(s);
            const Lanes multiple = scales_of(1.0f, parts.scale);
            const Scalars yg = gathered<sub_blocks>(sums.yv * multiple * share_);
            const Scalars gg = gathered<sub_blocks>(sums.vv * multiple * multiple * share_);
            for (int b = 0; b < Scalars::count; ++b) d[b] = half(yg[b] * inverse(gg[b]));
        }
        return best;
    }
};

template <class Format, class Weights>
SuperBlocks<Format> search_codebook(const Lanes* x, const Weights& given, const Lanes& mean_square) {
    constexpr int elements = Format::elements, sub_blocks = Format::block_size / elements;
    Lanes w[elements], share = 1.0f;
    for (int e = 0; e < elements; ++e) w[e] = given[e];
    if constexpr (std::is_same_v<Weights, Ones>) {
        return CodebookSearch<Format>(x, w, share).search(nullptr, mean_square);
    } else {
        Lanes sum = total<elements>([&](int e) { return w[e]; });
        const Mask some = sum > Lanes(0.0f);
        for (Lanes& each : w) each = select(some, each, 1.0f);
        auto shares = gathered<sub_blocks>(select(some, 1.0f, 0.0f));
        share = select(some, 1.0f, select(spread(shares) > Lanes(0.0f), 0.0f, 1.0f));
        return CodebookSearch<Format>(x, w, share).search(given, mean_square);
    }
}

// The signs of eight weights as bits, the first in the lowest.
template <class Format>
inline unsigned sign_bits(const Lanes* x, const SubBlocks<Format>& parts, int lane, int g) {
    unsigned bits = 0;
    for (int e = 0; e < kSignGroup; ++e) bits |= unsigned(x[g * kSignGroup + e][lane] < 0.0f) << e;
    if (parts.flipped[g][lane] >= 0.0f) bits ^= 1u << int(parts.flipped[g][lane]);
    return parts.inverted[lane] != 0.0f ? bits ^ 255 : bits;
}

}  // namespace thriftbit::THRIFTBIT_ISA

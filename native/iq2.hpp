// The search of the IQ2 formats: super-blocks of 256 weights, x ≈ ± d·scale·codeword, with d in half precision, one scale of
// 1/8, 3/8, … 31/8 for each sub-block, and codewords of eight numbers. tests/conformance/specification/iq2.py is the same
// in numpy and explains it.
//
//   struct Format : IQ2 {
//       static constexpr int block_bytes, elements (of a sub-block);
//       static constexpr bool even_signs;  // in every eight weights an even number is minus
//       static constexpr float starts[];  // where the largest weight of a sub-block is put, as a share of 43
//       static const Codewords<group, levels>& codewords();
//       // llama.cpp's search: its settings (neighbours.hpp), and
//       static constexpr float their_factor;  // of d
//       static Lanes their_weight(x, importance or null, mean_square);  // with which it weighs errors
//       static TheirSubBlocks<Format> their_sub_blocks(x, w);
//   };
#pragma once

#include "blocks.hpp"
#include "codewords.hpp"
#include "neighbours.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ2 {
    static constexpr int block_size = 256, group = 8, levels = 3, scales = 16;
    static constexpr float values[levels] = {8, 25, 43}, unit = 0.125f;
    static constexpr float largest_number = 2 * levels - 1;  // llama.cpp searches with the numbers 1, 3, 5
    static constexpr auto mean_squares = MeanSquares::kOfBlocksAlways;
    static constexpr bool takes_zero_importance = true;
};

// What sixteen sub-blocks hold. scale: its place, so the multiple of d is unit · (2·scale + 1). flipped: in each group, the
// weight whose sign is not its own, or -1. inverted: 1 where all signs are inverted.
template <int groups>
struct SubBlocks {
    Lanes scale = 0.0f, inverted = 0.0f, flipped[groups];
    uint16_t codes[groups][kLanes] = {};

    SubBlocks() {
        for (auto& each : flipped) each = -1.0f;
    }

    void keep_where(const Mask& better, const SubBlocks& other) {
        const Lanes take = select(better, 1.0f, 0.0f);
        scale = select(better, other.scale, scale);
        inverted = select(better, other.inverted, inverted);
        for (int g = 0; g < groups; ++g) {
            flipped[g] = select(better, other.flipped[g], flipped[g]);
            for (int lane = 0; lane < kLanes; ++lane)
                if (take[lane] != 0.0f) codes[g][lane] = other.codes[g][lane];
        }
    }
};

template <class Format>
struct SuperBlocks {
    PerSuperBlock<Format::block_size / Format::elements> d;
    SubBlocks<Format::elements / IQ2::group> parts;
};

// The first of eight values that is the least, where `odd`, else -1.
template <class Value>
inline Lanes least_place(const Mask& odd, const Value& value) {
    Lanes least = value(0), place = 0.0f;
    for (int e = 1; e < IQ2::group; ++e) {
        const Lanes now = value(e);
        place = select(now < least, Lanes(float(e)), place);
        least = minimum(now, least);
    }
    return select(odd, place, -1.0f);
}

template <class Format>
class IQ2Search {
    static constexpr int elements = Format::elements, group = IQ2::group, groups = elements / group;
    static constexpr int sub_blocks = IQ2::block_size / elements;
    using Scalars = PerSuperBlock<sub_blocks>;
    using Parts = SubBlocks<groups>;

    const Lanes *x_, *w_;
    Lanes share_;
    Lanes sizes_[elements], flip_cost_[elements];
    Mask odd_[groups];

    // The weights as the codewords are to match them: sizes, negative where a sign is wrong.
    void signed_sizes(const Parts& parts, Lanes* y) const {
        const Mask inverted = parts.inverted > Lanes(0.0f);
        for (int e = 0; e < elements; ++e) {
            const Mask flip = parts.flipped[e / group] == Lanes(float(e % group));
            y[e] = select(flip, -sizes_[e], sizes_[e]);
            y[e] = select(inverted, -y[e], y[e]);
        }
    }

    // The best codewords at scale s, and with them the signs; their cost. hurried: the codewords are chosen as if all signs
    // were possible, and the wrong signs afterwards.
    template <bool hurried = false>
    Lanes choose_codes(const Lanes& s, Parts& parts) const {
        Lanes numbers[IQ2::levels], cost = 0.0f;
        for (int level = 0; level < IQ2::levels; ++level) numbers[level] = s * Lanes(IQ2::values[level]);
        for (int g = 0; g < groups; ++g) {
            const Lanes *sizes = sizes_ + g * group, *w = w_ + g * group, *flip_cost = flip_cost_ + g * group;
            const auto cost_of = [&](int e, int level) {
                const Lanes residual = sizes[e] - numbers[level];
                return w[e] * residual * residual;
            };
            if constexpr (Format::even_signs && !hurried) {
                const auto flip = [&](int e, int level) { return flip_cost[e] * numbers[level]; };
                cost += Format::codewords().nearest_with_odd_sign(cost_of, flip, parts.codes[g]);
            } else {
                cost += Format::codewords().nearest(cost_of, parts.codes[g]);
            }
            if constexpr (Format::even_signs) {
                Lanes v[group];
                Format::codewords().look_up(parts.codes[g], v);
                parts.flipped[g] = least_place(odd_[g], [&](int e) { return flip_cost[e] * v[e]; });
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
        return d * ((scale + scale + Lanes(1.0f)) * Lanes(IQ2::unit));
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
        return nearest(Lanes(0.5f) * (s * inverse(d * Lanes(IQ2::unit))) - Lanes(0.5f), 0, IQ2::scales - 1);
    }

    // Of sixteen candidates around the d that makes the largest scale the last one, the best by parabolas.
    Scalars rated_d(const Lanes& alone, const Lanes& curvature) const {
        Lanes factors;
        for (int k = 0; k < kLanes; ++k) factors[k] = float(1 / (IQ2::unit * (2 * IQ2::scales - 1) * (0.88 + 0.016 * k)));
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
    Parts best_scales(const Scalars& d, const Lanes& s, int reach) const {
        const Lanes d_lanes = spread(d), middle = nearest_scale(s, d_lanes);
        Parts best;
        Lanes least = kInfinity;
        for (int step = -reach; step <= reach; ++step) {
            Parts parts;
            parts.scale = clip(middle + Lanes(float(step)), 0.0f, float(IQ2::scales - 1));
            const Lanes cost = choose_codes(scales_of(d_lanes, parts.scale), parts);
            best.keep_where(cost < least, parts);
            least = minimum(cost, least);
        }
        return best;
    }

    // llama.cpp's choice.
    SuperBlocks<Format> theirs(const Lanes* raw_w, const Lanes& mean_square) const {
        Lanes w[elements], y[elements];
        for (int e = 0; e < elements; ++e) w[e] = Format::their_weight(x_[e], raw_w ? raw_w + e : nullptr, mean_square);
        SuperBlocks<Format> found;
        Parts& parts = found.parts;
        for (int g = 0; g < groups; ++g)
            parts.flipped[g] = least_place(odd_[g], [&](int e) {
                const int i = g * IQ2::group + e;
                return w[i] * x_[i] * x_[i];
            });
        signed_sizes(parts, y);
        const TheirSubBlocks<Format> each = Format::their_sub_blocks(y, w);
        parts.inverted = each.inverted;
        std::memcpy(parts.codes, each.codes, sizeof parts.codes);
        Scalars step;
        for (int b = 0; b < Scalars::count; ++b) {
            step[b] = largest_of<sub_blocks>(each.scale, b) / 31.0f;
            found.d[b] = half(step[b] * Format::their_factor);
        }
        const Lanes factor = Lanes(1.0f) / spread(step);
        parts.scale = nearest(Lanes(0.5f) * (factor * each.scale - Lanes(1.0f)), 0, IQ2::scales - 1);
        parts.scale = select(spread(step) > Lanes(0.0f), parts.scale, 0.0f);
        return found;
    }

    Lanes largest_size() const {
        Lanes largest = sizes_[0];
        for (int e = 1; e < elements; ++e) largest = maximum(largest, sizes_[e]);
        return largest;
    }

  public:
    // raw_w: importance, or null; ones in super-blocks without any. w: the same, and ones in sub-blocks without any.
    IQ2Search(const Lanes* x, const Lanes* w, const Lanes& share) : x_(x), w_(w), share_(share) {
        for (int e = 0; e < elements; ++e) sizes_[e] = magnitude(x[e]);
        for (int g = 0; g < groups; ++g) {
            Lanes sign = 1.0f;
            for (int e = 0; e < IQ2::group; ++e)
                sign = sign * select(x[g * IQ2::group + e] < Lanes(0.0f), -1.0f, 1.0f);
            odd_[g] = sign < Lanes(Format::even_signs ? 0.0f : -2.0f);
            for (int i = g * group; i < (g + 1) * group; ++i)
                flip_cost_[i] = select(odd_[g], Lanes(4.0f) * w[i] * sizes_[i], 0.0f);
        }
    }

    SuperBlocks<Format> search(const Lanes* raw_w, const Lanes& mean_square) const {
        SuperBlocks<Format> best = theirs(raw_w, mean_square);
        Scalars least = error_of(best.d, best.parts);

        // each sub-block's own scale, from llama.cpp's codewords and from scales that cut off large weights
        Sums sums = sums_of(best.parts);
        Lanes s = sums.fit(0.0f), curvature = sums.vv, gain = s * sums.yv;
        for (const float share : Format::starts) {
            Parts parts;
            const Lanes start = largest_size() * Lanes(share / IQ2::values[IQ2::levels - 1]);
            choose_codes<true>(start, parts);
            sums = sums_of(parts);
            const Lanes fitted = sums.fit(start);
            const Mask better = fitted * sums.yv > gain;
            gain = select(better, fitted * sums.yv, gain);
            s = select(better, fitted, s);
            curvature = select(better, sums.vv, curvature);
        }
        Scalars d = rated_d(s, curvature * share_);
        for (int pass = 0; pass < 2; ++pass) {
            const Parts parts = best_scales(d, s, pass ? 0 : 1);
            const Scalars error = error_of(d, parts);
            Scalars better;
            for (int b = 0; b < Scalars::count; ++b) {
                better[b] = error[b] < least[b];
                if (better[b]) least[b] = error[b], best.d[b] = d[b];
            }
            best.parts.keep_where(spread(better) > Lanes(0.0f), parts);
            if (pass) break;
            sums = sums_of(parts);
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
SuperBlocks<Format> search_iq2(const Lanes* x, const Weights& given, const Lanes& mean_square) {
    constexpr int elements = Format::elements, sub_blocks = IQ2::block_size / elements;
    Lanes w[elements], share = 1.0f;
    for (int e = 0; e < elements; ++e) w[e] = given[e];
    if constexpr (std::is_same_v<Weights, Ones>) {
        return IQ2Search<Format>(x, w, share).search(nullptr, mean_square);
    } else {
        const Mask some = total<elements>([&](int e) { return w[e]; }) > Lanes(0.0f);
        const Mask counts = spread(gathered<sub_blocks>(select(some, 1.0f, 0.0f))) > Lanes(0.0f);
        share = select(some, 1.0f, select(counts, 0.0f, 1.0f));
        Lanes raw_w[elements];
        for (int e = 0; e < elements; ++e) {
            raw_w[e] = select(counts, w[e], 1.0f);
            w[e] = select(some, w[e], 1.0f);
        }
        return IQ2Search<Format>(x, w, share).search(raw_w, mean_square);
    }
}

// The signs of eight weights as bits, the first in the lowest.
template <int groups>
inline unsigned sign_bits(const Lanes* x, const SubBlocks<groups>& parts, int lane, int g) {
    unsigned bits = 0;
    for (int e = 0; e < IQ2::group; ++e) bits |= unsigned(x[g * IQ2::group + e][lane] < 0.0f) << e;
    if (parts.flipped[g][lane] >= 0.0f) bits ^= 1u << int(parts.flipped[g][lane]);
    return parts.inverted[lane] != 0.0f ? bits ^ 255 : bits;
}

// The search of IQ2_XS and IQ2_S as llama.cpp has it: which number the highest weight is at step k, and which groups are
// searched again.
struct IQ2Steps {
    static constexpr int steps = 19;
    static constexpr auto second_look = SecondLook::kThoseThatAreNone;
    static constexpr float factor(int k) { return IQ2::largest_number + float(k - 9) * 0.1f; }
};

template <class Format>
TheirSubBlocks<Format> search_from_highest(const Lanes* x, const Lanes* w, float negligible) {
    Lanes highest = x[0];
    for (int e = 1; e < Format::elements; ++e) highest = maximum(highest, x[e]);
    const Mask usable = highest >= Lanes(negligible);
    highest = select(usable, highest, 1.0f);
    return search_neighbours<Format>(Format::neighbours(), x, w, highest, highest / Lanes(IQ2::largest_number), usable);
}

}  // namespace thriftbit::THRIFTBIT_ISA

// The search of IQ3_XXS and IQ3_S: the fast version of tests/conformance/specification/iq3.py, which explains it.
#pragma once

#include "blocks.hpp"
#include "codewords.hpp"
#include "short_codewords.hpp"

namespace thriftbit::THRIFTBIT_ISA {

struct IQ3 {
    static constexpr int block_size = 256, elements = 32, group = 4, levels = 8, groups = elements / group;
    static constexpr int sub_blocks = block_size / elements, highest = 15;  // of the scales
    static constexpr bool takes_zero_importance = true;
};

// Format : IQ3 { book, the codebook's name; top, its highest number; even_signs; unit: a scale is unit · (2 k + 1) · d }
template <class Format>
class IQ3Search : IQ3 {
  public:
    using Scalars = PerSuperBlock<sub_blocks>;

    Scalars d;
    Lanes scales;  // k
    uint16_t codes[groups][kLanes];
    uint8_t minus[kLanes][elements / 8];  // the signs, a byte for eight weights

    template <class Weights>
    IQ3Search(const Lanes* x, const Weights& w) {
        read_importance(w);
        Lanes largest = 0.0f, energy = 0.0f;
        for (int e = 0; e < elements; ++e) {
            size_[e] = wanted_[e] = magnitude(x[e]);
            largest = maximum(largest, size_[e]);
            energy += w_[e] * x[e] * x[e];
        }
        const Lanes smallest = largest * Lanes(4.4f / Format::top);
        for (int pair = 0; pair < groups / 2; ++pair) read_signs(x, pair, smallest);
        const Lanes units = inverse(energy) * Lanes(kUnits);
        for (int e = 0; e < elements; ++e) fine_w_[e] = w_[e] * units;
        energy = energy * share_;
        unit_error_ = energy * Lanes(1 / kUnits);
        choose_scales(alone(largest), energy);
        choose_codes();
    }

  private:
    static constexpr float kUnits = 4 * kMostCost;  // of error, in what a sub-block has to lose
    static constexpr int kCoarse = 7;
    static constexpr float kCoarseFirst = 0.72f, kCoarseStep = 0.12f;

    Lanes w_[elements], share_ = 1.0f;  // share_: zero for sub-blocks without importance, unless there is none at all
    Lanes size_[elements], wanted_[elements];  // wanted_: negative for a weight that takes the wrong sign
    Lanes odd_[groups / 2];  // one where the number of minus signs is odd
    Lanes fine_w_[elements], unit_error_;  // importance, so that errors are whole numbers; the error of one

    static const Codebook& book() {
        static const Codebook& book = codebook(Format::book);
        return book;
    }
    static const Codewords<group, levels>& codewords() {
        static const Codewords<group, levels> words(book());
        return words;
    }
    static const ShortCodewords& short_codewords() {
        static const ShortCodewords words(book());
        return words;
    }

    static Lanes multiple(const Lanes& k) { return k + k + Lanes(1.0f); }
    static Lanes possible(const Lanes& k) { return clip(k, 0.0f, float(highest)); }
    Lanes step() const { return spread(d) * Lanes(Format::unit); }
    Lanes scale_of(const Lanes& k) const { return step() * multiple(k); }
    static Lanes nearest_scale(const Lanes& s, const Lanes& inverse_step) {
        return nearest((s * inverse_step - Lanes(1.0f)) * Lanes(0.5f), 0, highest);
    }
    static void numbers_at(const Lanes& s, Lanes* numbers) {
        for (int level = 0; level < levels; ++level) numbers[level] = s * Lanes(book().values[level]);
    }

    template <class Weights>
    void read_importance(const Weights& w) {
        for (int e = 0; e < elements; ++e) w_[e] = w[e];
        const Mask some = total<elements>([&](int e) { return w_[e]; }) > Lanes(0.0f);
        for (Lanes& each : w_) each = select(some, each, 1.0f);
        const Scalars count = gathered<sub_blocks>(select(some, 1.0f, 0.0f));
        share_ = select(some, 1.0f, select(spread(count) > Lanes(0.0f), 0.0f, 1.0f));
    }

    // smallest: about what the smallest number of a codeword becomes.
    void read_signs(const Lanes* x, int pair, const Lanes& smallest) {
        const int first = 8 * pair;
        Lanes bits = 0.0f, odd = 0.0f, least = kInfinity, cheapest = 0.0f;
        for (int e = 0; e < 8; ++e) {
            const Mask negative = x[first + e] < Lanes(0.0f);
            bits += select(negative, float(1 << e), 0.0f);
            odd = select(negative, Lanes(1.0f) - odd, odd);
            const Lanes wrong = size_[first + e] + smallest;
            const Lanes right = minimum(magnitude(size_[first + e] - smallest), smallest);
            const Lanes cost = w_[first + e] * (wrong * wrong - right * right);
            const Mask cheaper = cost < least;
            least = select(cheaper, cost, least);
            cheapest = select(cheaper, float(e), cheapest);
        }
        for (int lane = 0; lane < kLanes; ++lane) minus[lane][pair] = uint8_t(bits[lane]);
        odd_[pair] = odd;
        if (!Format::even_signs) return;
        for (int e = 0; e < 8; ++e) {
            const Mask wrong = (odd > Lanes(0.0f)) & (cheapest == Lanes(float(e)));
            wanted_[first + e] = select(wrong, Lanes(0.0f) - size_[first + e], size_[first + e]);
        }
    }

    // The least error at scales s, in whole numbers.
    Lanes error_at(const Lanes& s) const {
        Lanes numbers[levels], error = 0.0f;
        numbers_at(s, numbers);
        for (int g = 0; g < groups; g += 2) {
            const auto cost = [&](int e, int level) {
                const Lanes residual = wanted_[e] - numbers[level];
                return minimum(fine_w_[e] * residual * residual, kMostCost);
            };
            error += short_codewords().least([&](int e, int level) {
                return Shorts(cost(g * group + e, level), cost((g + 1) * group + e, level));
            });
        }
        return error;
    }

    // best: the scale with the least error, in a coarse row, then by a parabola through the best and two between its
    // neighbours. other: the best in the row that is no neighbour of the best.
    struct Alone {
        Lanes best, other;
    };

    Alone alone(const Lanes& largest) const {
        const Lanes top = largest * Lanes(1 / Format::top);
        Lanes errors[kCoarse], at = kInfinity, best = 0.0f;
        const auto place = [](int i) { return Lanes(kCoarseFirst + kCoarseStep * float(i)); };
        for (int i = 0; i < kCoarse; ++i) {
            errors[i] = error_at(top * place(i));
            best = select(errors[i] < at, place(i), best);
            at = minimum(errors[i], at);
        }
        Lanes least_other = kInfinity, other = best;
        for (int i = 0; i < kCoarse; ++i) {
            const Mask better = (errors[i] < least_other) & (magnitude(place(i) - best) > Lanes(1.5f * kCoarseStep));
            least_other = select(better, errors[i], least_other);
            other = select(better, place(i), other);
        }
        const Lanes distance(kCoarseStep / 2);
        const Lanes below = error_at(top * (best - distance)), above = error_at(top * (best + distance));
        const Lanes bend = (below - at) + (above - at);
        const Lanes shift = clip(Lanes(0.5f) * (below - above) * inverse(bend), -1.0f, 1.0f);
        const Lanes lower = select(above < below, 1.0f, -1.0f);
        return {top * (best + distance * select(bend > Lanes(0.0f), shift, lower)), top * other};
    }

    // Chooses d for the scales that sub-blocks would have alone. Here a lane is a candidate.
    void rate(const Lanes& alone, const Lanes& energy) {
        Lanes shrink;
        for (int i = 0; i < kPositions; ++i)
            shrink[i] = 1.0f / ((2 * highest + 1) * Format::unit * (1.0f + float(i - 6) / 64.0f));
        for (int b = 0; b < Scalars::count; ++b) {
            const Lanes candidates = half(Lanes(largest_of<sub_blocks>(alone, b)) * shrink);
            const Lanes step = candidates * Lanes(Format::unit), inverse_step = inverse(step);
            Lanes rating = 0.0f;
            for (int j = b * sub_blocks; j < (b + 1) * sub_blocks; ++j) {
                const Lanes k = nearest_scale(Lanes(alone[j]), inverse_step);
                const Lanes shift = step * multiple(k) * Lanes(inverse(alone[j])) - Lanes(1.0f);
                rating += shift * shift * Lanes(energy[j]);
            }
            int best = 0;
            for (int i = 1; i < kPositions; ++i)
                if (rating[i] < rating[best]) best = i;
            d[b] = candidates[best];
        }
    }

    // The errors at the present scales and their neighbours.
    struct Curve {
        Lanes middle, below, at, above;
    };

    Curve curve() const {
        return {scales, error_at(scale_of(possible(scales - Lanes(1.0f)))), error_at(scale_of(scales)),
                error_at(scale_of(possible(scales + Lanes(1.0f))))};
    }

    // Moves each scale to the best of the curve. Returns the errors.
    Lanes move(const Curve& curve) {
        const Lanes lower = minimum(curve.below, curve.at), least = minimum(curve.above, lower);
        const Lanes shift = select(curve.above < lower, 1.0f, select(curve.below < curve.at, -1.0f, 0.0f));
        scales = possible(curve.middle + shift);
        return least;
    }

    // d at the least of the parabolas through the curve's errors, for the present scales.
    void refit(const Curve& curve) {
        const Lanes slope = (curve.above - curve.below) * Lanes(0.5f) * unit_error_;
        const Lanes bend =
            maximum((curve.above - curve.at) + (curve.below - curve.at), 0.0f) * Lanes(0.5f) * unit_error_;
        const Lanes own = multiple(scales) * Lanes(0.5f), middle = multiple(curve.middle) * Lanes(0.5f);
        const Scalars linear = gathered<sub_blocks>(own * (bend * middle * Lanes(2.0f) - slope));
        const Scalars square = gathered<sub_blocks>(bend * own * own);
        for (int b = 0; b < Scalars::count; ++b)
            d[b] = half(d[b] * std::clamp(linear[b] * 0.5f * inverse(square[b]), 0.95f, 1.05f));
    }

    Scalars in_super_blocks(const Lanes& error) const { return gathered<sub_blocks>(error * unit_error_); }

    void choose_scales(const Alone& alone, const Lanes& energy) {
        rate(alone.best, energy);
        scales = nearest_scale(alone.best, inverse(step()));
        const Curve first = curve();
        const Lanes first_error = move(first), first_scales = scales;
        const Scalars least = in_super_blocks(first_error), first_d = d;
        refit(first);
        Lanes error = move(curve());
        const Scalars left = in_super_blocks(error);
        Scalars better;
        for (int b = 0; b < Scalars::count; ++b) {
            better[b] = left[b] < least[b];
            if (!better[b]) d[b] = first_d[b];
        }
        const Mask refitted = spread(better) > Lanes(0.0f);
        scales = select(refitted, scales, first_scales);
        error = select(refitted, error, first_error);

        const Lanes other = nearest_scale(alone.other, inverse(step()));
        for (int i = 0; i < 2; ++i) {
            const Lanes k = possible(other + Lanes(float(i))), other_error = error_at(scale_of(k));
            scales = select(other_error < error, k, scales);
            error = minimum(other_error, error);
        }
    }

    void choose_codes() {
        Lanes numbers[levels];
        numbers_at(scale_of(scales), numbers);
        for (int g = 0; g < groups; g += Format::even_signs ? 2 : 1)
            if constexpr (Format::even_signs)
                choose_pair(numbers, g);
            else
                codewords().nearest(cost_of(numbers, g), codes[g]);
    }

    auto cost_of(const Lanes* numbers, int g) const {
        return [=, this](int e, int level) {
            const Lanes residual = size_[g * group + e] - numbers[level];
            return w_[g * group + e] * residual * residual;
        };
    }

    // Two groups whose signs are even together: where they are not, one weight of either group takes the wrong sign.
    void choose_pair(const Lanes* numbers, int first) {
        uint16_t paying[2][kLanes];
        Lanes cost[2], cost_paying[2];
        for (int i = 0; i < 2; ++i) {
            const int g = first + i;
            const auto flip = [&](int e, int level) {
                return w_[g * group + e] * size_[g * group + e] * numbers[level] * Lanes(4.0f);
            };
            cost[i] = codewords().nearest(cost_of(numbers, g), codes[g]);
            cost_paying[i] = codewords().nearest_with_odd_sign(cost_of(numbers, g), flip, paying[i]);
        }
        const Lanes payer = select(cost[0] + cost_paying[1] < cost_paying[0] + cost[1], 1.0f, 0.0f);
        for (int lane = 0; lane < kLanes; ++lane) {
            if (odd_[first / 2][lane] == 0.0f) continue;
            const int i = int(payer[lane]), g = first + i;
            codes[g][lane] = paying[i][lane];
            const uint8_t* level = book().codeword(codes[g][lane]);
            float least = kInfinity;
            int cheapest = 0;
            for (int e = 0; e < group; ++e) {
                const float flip = w_[g * group + e][lane] * size_[g * group + e][lane] * book().values[level[e]];
                if (flip < least) least = flip, cheapest = e;
            }
            minus[lane][first / 2] ^= uint8_t(1 << (i * group + cheapest));
        }
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

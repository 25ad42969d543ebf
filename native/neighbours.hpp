// llama.cpp's search for the scale and the codewords of a sub-block, in the formats IQ2_* and IQ3_*.
//
// llama.cpp tries a row of scales. At each it rounds every number to its own level; where the levels of a group are no
// codeword, it looks among the codewords nearest to them, the neighbours of the pattern. It keeps the scale that
// explains most, and looks once more at that scale. Here this gives the same result to the last bit.
//
// The levels of a group stay the same over many of the scales. Between two of them the cost of each neighbour, divided
// by the scale, is a straight line plus what all neighbours share. So a neighbour that is clearly the best at the first
// and at the last scale is the best between them. Only where the choice is close is it made at each scale.
#pragma once

#include <algorithm>

#include "codebooks.hpp"
#include "llama_cpp.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// A pattern has the levels of a group, `bits` bits for each, the first number in the lowest bits.
template <int group, int levels>
class Neighbours {
  public:
    static constexpr int bits = levels <= 4 ? 2 : 3, patterns = 1 << bits * group;

    // shells: how many distances count as near.
    Neighbours(const Codebook& book, int shells) : place_(patterns, 0) {
        const int count = book.codewords();
        std::vector<int> level_of[group], distance(count);
        for (int e = 0; e < group; ++e)
            for (int code = 0; code < count; ++code) level_of[e].push_back(book.codeword(code)[e]);
        for (int code = 0; code < count; ++code) {
            int pattern = 0;
            for (int e = 0; e < group; ++e) pattern |= level_of[e][code] << bits * e;
            pattern_of_.push_back(uint16_t(pattern));
            place_[pattern] = code + 1;
        }
        for (int pattern = 0; pattern < patterns; ++pattern) {
            bool possible = place_[pattern] == 0;
            std::fill(distance.begin(), distance.end(), 0);
            for (int e = 0; e < group; ++e) {
                const int level = pattern >> bits * e & ((1 << bits) - 1);
                possible = possible && level < levels;
                for (int code = 0; code < count; ++code)
                    distance[code] += (level_of[e][code] - level) * (level_of[e][code] - level);
            }
            if (possible) add_list(pattern, distance, shells);
        }
    }

    bool is_codeword(int pattern) const { return place_[pattern] > 0; }
    int code_of(int pattern) const { return place_[pattern] - 1; }

    struct Choice {
        int pattern;
        float least, second;  // the costs of the best and of the second-best
    };

    // The neighbour with the least sum of w·(s·number − x)², numbers being 1, 3, 5, …; of equals, the first. x, w: of
    // the group.
    Choice nearest(int pattern, const float* x, const float* w, float s) const {
        const List& list = lists_[-place_[pattern]];
        Lanes tables[group], numbers, lane_numbers;
        for (int lane = 0; lane < kLanes; ++lane) {
            lane_numbers[lane] = float(lane);
            numbers[lane] = float(2 * (lane % (1 << bits)) + 1);
        }
        for (int e = 0; e < group; ++e) {
            const Lanes difference = Lanes(s) * numbers - Lanes(x[e]);
            tables[e] = Lanes(w[e]) * difference * difference;
        }
        const uint16_t* entries = entries_.data() + list.begin;
        Lanes least = kInfinity, second = kInfinity, chunk_of_least = 0.0f;
        for (int chunk = 0; chunk * kLanes < list.count; ++chunk) {
            const Ints entry = load_ints(entries + chunk * kLanes);
            Lanes cost = look_up(tables[0], entry, 0, bits);
            for (int e = 1; e < group; ++e) cost += look_up(tables[e], entry, bits * e, bits);
            cost = select(lane_numbers < Lanes(float(list.count - chunk * kLanes)), cost, kInfinity);
            second = minimum(second, maximum(least, cost));
            chunk_of_least = select(cost < least, Lanes(float(chunk)), chunk_of_least);
            least = minimum(cost, least);
        }
        const float best = least_of(least);
        int lane = first_lane_with(least, best), place = int(chunk_of_least[lane]) * kLanes + lane;
        least[lane] = kInfinity;
        const float next_best = least_of(minimum(second, least));
        if (next_best == best)  // equals in other lanes may come first in the list
            while ((lane = first_lane_with(least, best)) < kLanes) {
                place = std::min(place, int(chunk_of_least[lane]) * kLanes + lane);
                least[lane] = kInfinity;
            }
        return {entries[place], best, next_best};
    }

  private:
    struct List {
        int begin, count;
    };
    std::vector<int> place_;  // code + 1 of a codeword; else minus the number of the list
    std::vector<List> lists_{{0, 0}};
    std::vector<uint16_t> entries_, pattern_of_;  // lists are padded to whole registers

    void add_list(int pattern, const std::vector<int>& distance, int shells) {
        place_[pattern] = -int(lists_.size());
        List list{int(entries_.size()), 0};
        int last = -1;
        for (int shell = 0; shell < shells; ++shell) {
            int next = INT32_MAX;
            for (int d : distance)
                if (d > last && d < next) next = d;
            for (size_t code = 0; code < distance.size(); ++code)
                if (distance[code] == next) entries_.push_back(pattern_of_[code]);
            last = next;
        }
        list.count = int(entries_.size()) - list.begin;
        entries_.resize((entries_.size() + kLanes - 1) / kLanes * kLanes, entries_[list.begin]);
        lists_.push_back(list);
    }
};

// Which groups are searched once more at the final scale: all of them, all if some rounded pattern was no codeword, or
// those whose rounded pattern was none.
enum class SecondLook { kAll, kAllIfSomeAreNone, kThoseThatAreNone };

// Search has the settings of a format: elements (of a sub-block), group, levels; steps, and factor(k): which number the
// highest weight is at step k; second_look.
// The result: the scale in llama.cpp's units, in which numbers are 1, 3, 5, …; 1 where all signs are inverted; the codes
// of the groups.
template <class Search>
struct TheirSubBlocks {
    static constexpr int groups = Search::elements / Search::group;
    Lanes scale, inverted;
    uint16_t codes[groups][kLanes];
};

// x: the weights without their signs, negative where the format's sign cannot be the weight's. w: llama.cpp's weights.
// highest: the highest of x, or what stands for it. first_scale: kept where no step explains anything. usable: the lanes
// that llama.cpp does not take for zero.
template <class Search>
TheirSubBlocks<Search> search_neighbours(const Neighbours<Search::group, Search::levels>& neighbours, const Lanes* x,
                                         const Lanes* w, const Lanes& highest, const Lanes& first_scale,
                                         const Mask& usable) {
    using Table = Neighbours<Search::group, Search::levels>;
    constexpr int elements = Search::elements, group = Search::group, groups = elements / group, steps = Search::steps;
    constexpr int is_codeword = 1 << Table::bits * group;
    TheirSubBlocks<Search> found;

    Lanes wx[elements];
    float xs[kLanes][elements], roots[kLanes][elements];
    for (int e = 0; e < elements; ++e) {
        wx[e] = w[e] * x[e];
        const Lanes root_w = root(w[e]);
        for (int lane = 0; lane < kLanes; ++lane) xs[lane][e] = x[e][lane], roots[lane][e] = root_w[lane];
    }

    // the patterns of rounded levels of all groups, for a factor that turns weights into numbers
    const auto round_all = [&](const Lanes& factor, int32_t (*patterns)[kLanes]) {
        for (int g = 0; g < groups; ++g) {
            Lanes pattern = 0.0f;
            for (int e = group - 1; e >= 0; --e) {
                const Lanes y = Lanes(0.5f) * (factor * x[g * group + e] - Lanes(1.0f));
                pattern = pattern * Lanes(float(1 << Table::bits)) + nearest(y, 0, Search::levels - 1);
            }
            for (int lane = 0; lane < kLanes; ++lane) patterns[g][lane] = int32_t(pattern[lane]);
        }
    };
    const auto choose = [&](int lane, int g, int pattern, float s) {
        return neighbours.nearest(pattern, xs[lane] + g * group, roots[lane] + g * group, s);
    };

    int32_t patterns[steps][groups][kLanes];  // rounded, then the chosen codewords
    Lanes scales[steps];
    for (int k = 0; k < steps; ++k) {
        const Lanes factor = Lanes(Search::factor(k)) / highest;
        scales[k] = Lanes(1.0f) / factor;
        round_all(factor, patterns[k]);
    }
    const Lanes in_use = select(usable, 1.0f, 0.0f);
    for (int lane = 0; lane < kLanes; ++lane) {
        if (in_use[lane] == 0.0f) continue;
        for (int g = 0; g < groups; ++g)
            for (int k = 0; k < steps;) {
                const int pattern = patterns[k][g][lane];
                int last = k;
                while (last + 1 < steps && patterns[last + 1][g][lane] == pattern) ++last;
                if (neighbours.is_codeword(pattern)) {
                    for (; k <= last; ++k) patterns[k][g][lane] = pattern | is_codeword;
                    continue;
                }
                const auto at_first = choose(lane, g, pattern, scales[k][lane]);
                const auto at_last = k == last ? at_first : choose(lane, g, pattern, scales[last][lane]);
                const float close = 1e-4f * std::max(at_first.least, at_last.least);
                const bool clear = at_first.pattern == at_last.pattern && at_first.second - at_first.least > close &&
                                   at_last.second - at_last.least > close;
                patterns[last][g][lane] = at_last.pattern;
                patterns[k][g][lane] = at_first.pattern;
                for (++k; k < last; ++k)
                    patterns[k][g][lane] = clear ? at_first.pattern : choose(lane, g, pattern, scales[k][lane]).pattern;
                k = last + 1;
            }
    }

    Ints kept[groups];
    for (auto& pattern : kept) pattern = all_ints(Search::second_look == SecondLook::kAllIfSomeAreNone ? 0 : is_codeword);
    Lanes best = 0.0f;
    found.scale = first_scale;
    const auto sums_of = [&](const Ints* chosen, Lanes& sum_qx, Lanes& sum_qq) {
        sum_qx = sum_qq = 0.0f;
        for (int e = 0; e < elements; ++e) {
            const Lanes level = bit_field(chosen[e / group], e % group * Table::bits, Table::bits);
            const Lanes q = level + level + Lanes(1.0f);
            sum_qx += wx[e] * q;
            sum_qq += w[e] * q * q;
        }
    };
    for (int k = 0; k < steps; ++k) {
        if (k && !std::memcmp(patterns[k], patterns[k - 1], sizeof patterns[k])) continue;
        Ints chosen[groups];
        for (int g = 0; g < groups; ++g) chosen[g] = load_ints(patterns[k][g]);
        Lanes sum_qx, sum_qq;
        sums_of(chosen, sum_qx, sum_qq);
        const Mask better = (sum_qq > Lanes(0.0f)) & (sum_qx * sum_qx > best * sum_qq);
        const Lanes scale = sum_qx / sum_qq;
        found.scale = select(better, scale, found.scale);
        best = select(better, scale * sum_qx, best);
        for (int g = 0; g < groups; ++g) kept[g] = select(better, chosen[g], kept[g]);
    }

    // once more at the scale that was found
    int32_t final_patterns[groups][kLanes], kept_patterns[groups][kLanes];
    for (int g = 0; g < groups; ++g) store_ints(kept[g], kept_patterns[g]);
    round_all(Lanes(1.0f) / found.scale, final_patterns);
    Lanes looked_again = 0.0f;
    for (int lane = 0; lane < kLanes; ++lane) {
        bool none = Search::second_look == SecondLook::kAll;
        for (int g = 0; g < groups; ++g) none = none || !(kept_patterns[g][lane] & is_codeword);
        const bool again = in_use[lane] != 0.0f && none && found.scale[lane] > 0.0f;
        looked_again[lane] = again ? 1.0f : 0.0f;
        for (int g = 0; g < groups; ++g) {
            int& pattern = kept_patterns[g][lane];
            const bool keep = Search::second_look == SecondLook::kThoseThatAreNone && (pattern & is_codeword);
            if (again && !keep) {
                pattern = final_patterns[g][lane];
                if (!neighbours.is_codeword(pattern)) pattern = choose(lane, g, pattern, found.scale[lane]).pattern;
            }
            pattern &= is_codeword - 1;
            found.codes[g][lane] = in_use[lane] != 0.0f ? uint16_t(neighbours.code_of(pattern)) : 0;
        }
    }
    for (int g = 0; g < groups; ++g) kept[g] = load_ints(kept_patterns[g]);
    Lanes sum_qx, sum_qq;
    sums_of(kept, sum_qx, sum_qq);
    const Mask refitted = (looked_again > Lanes(0.0f)) & (sum_qq > Lanes(0.0f));
    found.scale = select(usable, select(refitted, sum_qx / sum_qq, found.scale), 0.0f);
    found.inverted = select(found.scale < Lanes(0.0f), 1.0f, 0.0f);
    found.scale = magnitude(found.scale);
    return found;
}

}  // namespace thriftbit::THRIFTBIT_ISA

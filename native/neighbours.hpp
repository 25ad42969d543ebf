// llama.cpp's search for the scale and the codewords of a sub-block, in the formats IQ2_*.
//
// llama.cpp tries a row of scales. At each it rounds every number to its own level; where the levels of a group are no
// codeword, it looks among the codewords nearest to them, the neighbours of the pattern. It keeps the scale that
// explains most, and looks once more at that scale. Here this gives the same result to the last bit.
//
// The levels of a group stay the same over many of the scales. Without what all neighbours share, and divided by the
// scale, the cost of each is a straight line over the scale. So a neighbour that is clearly the best at two scales is the
// best between them. Only where the choice is close are the costs added up as llama.cpp does.
#pragma once

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "codewords.hpp"
#include "llama_cpp.hpp"

namespace thriftbit::THRIFTBIT_ISA {

// A pattern has the levels of a group, `bits` bits for each, the first number in the lowest bits. A key is a number whose
// digits are the levels, the first number in the lowest digit: there are fewer keys, and their table fits into the cache.
template <int group, int levels>
class Neighbours {
  public:
    static constexpr int bits = levels <= 4 ? 2 : 3, keys = power(levels, group);

  private:
    static constexpr int kMostChunks = 32;  // of sixteen neighbours
    static constexpr float kUncertain = 1e-5f;  // what rounding may change is far less

    struct Place {  // of the neighbours; without any, `begin` is the pattern of the codeword itself
        int32_t begin = -1, count = 0;
    };

  public:
    // shells: how many distances count as near.
    Neighbours(const Codebook& book, int shells) : places_(keys), codes_(1 << bits * group) {
        for (int lane = 0; lane < kLanes; ++lane) {
            lane_numbers_[lane] = float(lane);
            numbers_[lane] = float(2 * (lane % (1 << bits)) + 1);
        }
        const int count = book.codewords();
        std::vector<int> level_of[group], distance(count);
        for (int e = 0; e < group; ++e)
            for (int code = 0; code < count; ++code) level_of[e].push_back(book.codeword(code)[e]);
        for (int code = 0; code < count; ++code) {
            int pattern = 0, key = 0;
            for (int e = group - 1; e >= 0; --e) {
                pattern |= level_of[e][code] << bits * e;
                key = key * levels + level_of[e][code];
            }
            pattern_of_.push_back(uint16_t(pattern));
            codes_[pattern] = uint16_t(code);
            places_[key] = {pattern, 0};
        }
        for (int key = 0; key < keys; ++key) {
            if (places_[key].begin >= 0) continue;
            std::fill(distance.begin(), distance.end(), 0);
            for (int e = 0, rest = key; e < group; ++e, rest /= levels)
                for (int code = 0; code < count; ++code)
                    distance[code] += (level_of[e][code] - rest % levels) * (level_of[e][code] - rest % levels);
            add_list(key, distance, shells);
        }
    }

    // The pattern, if the key is a codeword's; else -1.
    int codeword(int key) const { return places_[key].count ? -1 : places_[key].begin; }
    int code_of(int pattern) const { return codes_[pattern]; }

    // Which of a key's neighbours has the least sum of w·(s·number − x)², numbers being 1, 3, 5, …; of equals, the
    // first. It is the pattern that is returned. x, w: of the group.
    int nearest(int key, const float* x, const float* w, float s) const {
        const Place list = places_[key];
        Lanes tables[group];
        for (int e = 0; e < group; ++e) {
            const Lanes difference = Lanes(s) * numbers_ - Lanes(x[e]);
            tables[e] = Lanes(w[e]) * difference * difference;
        }
        const uint16_t* entries = entries_.data() + list.begin;
        Lanes least = kInfinity, place = 0.0f;
        for (int first = 0; first < list.count; first += kLanes) {
            const Ints entry = load_ints(entries + first);
            const Lanes places = lane_numbers_ + Lanes(float(first)), cost = sum_of(tables, entry);
            const Mask better = cost < least;
            place = select(better, places, place);
            least = minimum(cost, least);
        }
        const Lanes last = float(list.count - 1);
        return entries[int(least_of(select(least == Lanes(least_of(least)), place, last)))];
    }

    // The costs of a group's codewords as functions of the scale. Without what all have in common, and divided by the
    // scale, they are straight lines.
    class Lines {
        const Neighbours& neighbours_;
        Lanes slopes_[group], starts_[group];  // of the numbers
        Lanes slope_[kMostChunks], start_[kMostChunks];  // of the neighbours of the key
        Place list_;

      public:
        Lines(const Neighbours& neighbours, const float* x, const float* w) : neighbours_(neighbours) {
            for (int e = 0; e < group; ++e) {
                slopes_[e] = Lanes(w[e]) * neighbours.numbers_ * neighbours.numbers_;
                starts_[e] = Lanes(-2 * w[e] * x[e]) * neighbours.numbers_;
            }
        }

        void set_key(int key) {
            list_ = neighbours_.places_[key];
            for (int first = 0, chunk = 0; first < list_.count; first += kLanes, ++chunk) {
                const Ints entry = load_ints(neighbours_.entries_.data() + list_.begin + first);
                const Mask real = neighbours_.lane_numbers_ < Lanes(float(list_.count - first));
                slope_[chunk] = select(real, sum_of(slopes_, entry), kInfinity);
                start_[chunk] = sum_of(starts_, entry);
            }
        }

        // The pattern of the neighbour that is clearly the lowest at scale s, or -1.
        int lowest(float s) const {
            Lanes least = kInfinity, second = kInfinity, chunk_of_least = 0.0f;
            const int chunks = (list_.count + kLanes - 1) / kLanes;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                const Lanes cost = slope_[chunk] * Lanes(s) + start_[chunk];
                second = minimum(second, maximum(least, cost));
                chunk_of_least = select(cost < least, Lanes(float(chunk)), chunk_of_least);
                least = minimum(cost, least);
            }
            const float lowest = least_of(least);
            const int lane = first_lane_with(least, lowest);
            if (lane == kLanes) return -1;
            const int chunk = int(chunk_of_least[lane]);
            const Mask here = neighbours_.lane_numbers_ == Lanes(float(lane));
            const float next = least_of(minimum(second, select(here, kInfinity, least)));
            const float uncertain = kUncertain * (slope_[chunk][lane] * s + std::abs(start_[chunk][lane]));
            return next - lowest > uncertain ? neighbours_.entries_[list_.begin + chunk * kLanes + lane] : -1;
        }
    };

  private:
    Lanes lane_numbers_, numbers_;
    std::vector<Place> places_;  // of the keys
    std::vector<uint16_t> entries_, pattern_of_, codes_;  // lists of entries are padded to whole registers

    static Lanes sum_of(const Lanes* tables, const Ints& entry) {
        Lanes sum = look_up(tables[0], entry, 0, bits);
        for (int e = 1; e < group; ++e) sum += look_up(tables[e], entry, bits * e, bits);
        return sum;
    }

    void add_list(int key, const std::vector<int>& distance, int shells) {
        Place list{int(entries_.size()), 0};
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
        if (list.count > kMostChunks * kLanes) throw std::length_error("a pattern with too many neighbours");
        entries_.resize((entries_.size() + kLanes - 1) / kLanes * kLanes, entries_[list.begin]);
        places_[key] = list;
    }
};

// Which groups are searched once more at the final scale: all of them, or those whose rounded pattern was no codeword.
enum class SecondLook { kAll, kThoseThatAreNone };

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

    // the keys of rounded levels of all groups, for a factor that turns weights into numbers
    const auto round_all = [&](const Lanes& factor, int32_t (*keys)[kLanes]) {
        for (int g = 0; g < groups; ++g) {
            Lanes key = 0.0f;
            for (int e = group - 1; e >= 0; --e) {
                const Lanes y = Lanes(0.5f) * (factor * x[g * group + e] - Lanes(1.0f));
                key = key * Lanes(float(Search::levels)) + nearest(y, 0, Search::levels - 1);
            }
            for (int lane = 0; lane < kLanes; ++lane) keys[g][lane] = int32_t(key[lane]);
        }
    };
    const auto choose = [&](int lane, int g, int key, float s) {
        return neighbours.nearest(key, xs[lane] + g * group, roots[lane] + g * group, s);
    };

    int32_t patterns[steps][groups][kLanes];  // first the keys, then the patterns of the chosen codewords
    Lanes scales[steps];
    for (int k = 0; k < steps; ++k) {
        const Lanes factor = Lanes(Search::factor(k)) / highest;
        scales[k] = Lanes(1.0f) / factor;
        round_all(factor, patterns[k]);
    }
    const Lanes in_use = select(usable, 1.0f, 0.0f);
    for (int lane = 0; lane < kLanes; ++lane) {
        if (in_use[lane] == 0.0f) continue;
        for (int g = 0; g < groups; ++g) {
            typename Table::Lines lines(neighbours, xs[lane] + g * group, roots[lane] + g * group);
            for (int first = 0, last; first < steps; first = last + 1) {
                const int key = patterns[first][g][lane], codeword = neighbours.codeword(key);
                for (last = first; last + 1 < steps && patterns[last + 1][g][lane] == key;) ++last;
                if (codeword >= 0) {
                    for (int k = first; k <= last; ++k) patterns[k][g][lane] = codeword | is_codeword;
                    continue;
                }
                lines.set_key(key);
                // from both ends towards the middle; -1 where it is not clear
                const auto clear = [&](int k) {
                    const int lowest = lines.lowest(scales[k][lane]);
                    patterns[k][g][lane] = lowest >= 0 ? lowest : choose(lane, g, key, scales[k][lane]);
                    return lowest;
                };
                const auto between = [&](const auto& again, int from, int to, int at_from, int at_to) -> void {
                    if (to - from < 2) return;
                    if (at_from == at_to && at_from >= 0) {
                        for (int k = from + 1; k < to; ++k) patterns[k][g][lane] = at_from;
                        return;
                    }
                    const int middle = (from + to) / 2, at_middle = clear(middle);
                    again(again, from, middle, at_from, at_middle);
                    again(again, middle, to, at_middle, at_to);
                };
                const int at_first = clear(first), at_last = last == first ? at_first : clear(last);
                between(between, first, last, at_first, at_last);
            }
        }
    }

    Ints kept[groups];
    for (auto& pattern : kept) pattern = all_ints(is_codeword);
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
    int32_t final_keys[groups][kLanes], kept_patterns[groups][kLanes];
    for (int g = 0; g < groups; ++g) store_ints(kept[g], kept_patterns[g]);
    round_all(Lanes(1.0f) / found.scale, final_keys);
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
                const int key = final_keys[g][lane];
                pattern = neighbours.codeword(key);
                if (pattern < 0) pattern = choose(lane, g, key, found.scale[lane]);
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

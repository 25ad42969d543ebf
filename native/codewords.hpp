// The codeword with the least cost, for sixteen blocks at once.
//
//   static const Codewords<8, 3> codewords(codebook("iq2_xs"));  // group and levels, known to the compiler
//   uint16_t codes[kLanes];
//   const Lanes cost = codewords.nearest([&](int e, int level) { return ...; }, codes);
//
// `least` gives the cost alone and is faster. The function gives what number e of a group costs at each level; the cost of a codeword is the sum over its numbers.
// The search is exact. Half a codeword has 81 or 64 possible values only, so both halves are summed for all of them
// first. Then a codeword costs one minimum: codewords that begin alike are compared by their second halves.
//
// The costs are added as ((0 + 1) + (2 + 3)) + ((4 + 5) + (6 + 7)) for groups of eight, as (0 + 1) + (2 + 3) for groups
// of four. Of equal codewords the first in the order of first half, second half wins. The halves are numbers whose
// digits are the levels, the first number of the group first.
//
// nearest_with_odd_sign also takes what it costs to give number e the wrong sign at each level. One number of the eight
// has to pay. The cost of a codeword is min((first + flip) + second, first + (second + flip)), where flip is the least
// of its half.
#pragma once

#include <algorithm>
#include <array>

#include "codebooks.hpp"
#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int power(int base, int exponent) { return exponent ? base * power(base, exponent - 1) : 1; }

template <int group, int levels>
class Codewords {
    static constexpr int half = group / 2, halves = power(levels, half);
    static_assert(half == 2 || half == 4);

    struct Row {  // the codewords with one first half
        int first, begin, end;
    };
    std::vector<Row> rows_;
    std::vector<uint8_t> seconds_;
    std::vector<uint16_t> codes_;
    std::vector<float> vectors_;

    static int number_of(const uint8_t* digits) {
        int number = 0;
        for (int e = 0; e < half; ++e) number = number * levels + digits[e];
        return number;
    }

    // All sums (or minima) of the numbers of one half.
    template <class Value, class Join>
    static void join(const Value& value, const Join& join_two, Lanes* all) {
        constexpr int pairs = levels * levels;
        Lanes pair[half / 2][pairs];
        for (int p = 0; p < half / 2; ++p)
            for (int a = 0; a < levels; ++a)
                for (int b = 0; b < levels; ++b) pair[p][a * levels + b] = join_two(value(2 * p, a), value(2 * p + 1, b));
        if constexpr (half == 2)
            std::copy(pair[0], pair[0] + pairs, all);
        else
            for (int a = 0; a < pairs; ++a)
                for (int b = 0; b < pairs; ++b) all[a * pairs + b] = join_two(pair[0][a], pair[half / 2 - 1][b]);
    }

    template <class Cost>
    static void tabulate(const Cost& cost, int first, Lanes* values) {
        for (int e = 0; e < half; ++e)
            for (int level = 0; level < levels; ++level) values[e * levels + level] = cost(first + e, level);
    }

    template <class Cost>
    static void sums(const Cost& cost, int first, Lanes* all) {
        Lanes values[half * levels];
        tabulate(cost, first, values);
        join([&](int e, int level) { return values[e * levels + level]; },
             [](const Lanes& a, const Lanes& b) { return a + b; }, all);
    }

    template <class Cost>
    static void minima(const Cost& cost, int first, Lanes* all) {
        Lanes values[half * levels];
        tabulate(cost, first, values);
        join([&](int e, int level) { return values[e * levels + level]; }, minimum, all);
    }

    // The least of the second halves of a row.
    Lanes least_second(const Row& row, const Lanes* second) const {
        Lanes even = second[seconds_[row.begin]], odd = even;
        int i = row.begin + 1;
        for (; i + 1 < row.end; i += 2) {
            odd = minimum(odd, second[seconds_[i]]);
            even = minimum(even, second[seconds_[i + 1]]);
        }
        return i < row.end ? minimum(minimum(even, odd), second[seconds_[i]]) : minimum(even, odd);
    }

    template <class RowCost>
    Lanes least_of_rows(const RowCost& cost_of_row) const {
        Lanes least = cost_of_row(rows_[0]);
        for (size_t r = 1; r < rows_.size(); ++r) least = minimum(cost_of_row(rows_[r]), least);
        return least;
    }

    // cost_of_row gives the least cost of a row. cost_of gives a codeword's cost in one lane.
    template <class RowCost, class LaneCost>
    Lanes search(const RowCost& cost_of_row, const LaneCost& cost_of, uint16_t* codes) const {
        Lanes least = cost_of_row(rows_[0]), best_row = 0.0f;
        for (size_t r = 1; r < rows_.size(); ++r) {
            const Lanes cost = cost_of_row(rows_[r]);
            const Mask better = cost < least;
            best_row = select(better, Lanes(float(r)), best_row);
            least = minimum(cost, least);
        }
        for (int lane = 0; lane < kLanes; ++lane) {
            const Row& row = rows_[size_t(best_row[lane])];
            int i = row.begin;
            while (i + 1 < row.end && cost_of(row.first, seconds_[i], lane) != least[lane]) ++i;
            codes[lane] = codes_[i];
        }
        return least;
    }

  public:
    explicit Codewords(const Codebook& book) {
        struct Entry {
            int first, second, code;
        };
        std::vector<Entry> entries;
        for (int code = 0; code < book.codewords(); ++code) {
            const uint8_t* levels_of_code = book.codeword(code);
            entries.push_back({number_of(levels_of_code), number_of(levels_of_code + half), code});
            for (int e = 0; e < group; ++e) vectors_.push_back(book.values[levels_of_code[e]]);
        }
        std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
            return a.first != b.first ? a.first < b.first : a.second < b.second;
        });
        for (const Entry& entry : entries) {
            if (rows_.empty() || rows_.back().first != entry.first)
                rows_.push_back({entry.first, int(codes_.size()), int(codes_.size())});
            ++rows_.back().end;
            seconds_.push_back(uint8_t(entry.second));
            codes_.push_back(uint16_t(entry.code));
        }
    }

    // The least cost alone.
    template <class Cost>
    Lanes least(const Cost& cost) const {
        Lanes first[halves], second[halves];
        sums(cost, 0, first);
        sums(cost, half, second);
        return least_of_rows([&](const Row& row) { return first[row.first] + least_second(row, second); });
    }

    template <class Cost>
    Lanes nearest(const Cost& cost, uint16_t* codes) const {
        Lanes first[halves], second[halves];
        sums(cost, 0, first);
        sums(cost, half, second);
        return search([&](const Row& row) { return first[row.first] + least_second(row, second); },
                      [&](int a, int b, int lane) { return first[a][lane] + second[b][lane]; }, codes);
    }

    template <class Cost, class Flip>
    Lanes nearest_with_odd_sign(const Cost& cost, const Flip& flip, uint16_t* codes) const {
        Lanes first[halves], second[halves], first_pays[halves], second_pays[halves];
        sums(cost, 0, first);
        sums(cost, half, second);
        minima(flip, 0, first_pays);
        minima(flip, half, second_pays);
        for (int a = 0; a < halves; ++a) {
            first_pays[a] = first[a] + first_pays[a];
            second_pays[a] = second[a] + second_pays[a];
        }
        return search(
            [&](const Row& row) {
                return minimum(first_pays[row.first] + least_second(row, second),
                               first[row.first] + least_second(row, second_pays));
            },
            [&](int a, int b, int lane) {
                return std::min(first_pays[a][lane] + second[b][lane], first[a][lane] + second_pays[b][lane]);
            },
            codes);
    }

    // The codewords of the codes, number e of each in v[e].
    void look_up(const uint16_t* codes, Lanes* v) const {
        const float* sources[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) sources[lane] = &vectors_[codes[lane] * group];
        load_columns<group>(sources, v);
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

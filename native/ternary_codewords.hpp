// The codeword with the least cost among codewords of -1, 0 and 1, for sixteen groups at once.
//
// A group's pattern has the cheapest digit of each of its eight weights. A third of all patterns are codewords, so the
// nearest codeword seldom differs from the pattern in more than one digit. For each pattern a table says which changes of
// one digit lead to a codeword; those are compared in lanes. Where two changes may cost less than the best single one,
// a search over the changes that cost no more than the best looks further, lane by lane. So the search is exact.
#pragma once

#include "codebooks.hpp"
#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

class TernaryCodewords {
  public:
    static constexpr int group = 8, patterns = 6561;

    // What the digits of sixteen groups cost. Digit e moves by 1 or 2, in a circle of three.
    struct Costs {
        Lanes digit[group];     // the cheapest of each weight; of equals, the first
        Lanes added[group][2];  // what a move by 1 or 2 adds to the cost
    };

    struct Nearest {
        Lanes added;  // to the cost of the cheapest digits; added in the order of the digits
        Lanes pattern;
    };

    explicit TernaryCodewords(const Codebook& book) : code_(patterns, kNone), moves_(patterns, 0) {
        for (int code = 0; code < book.codewords(); ++code) {
            int pattern = 0;
            for (int e = 0; e < group; ++e) pattern += book.codeword(code)[e] * kPower[e];
            code_[pattern] = uint16_t(code);
        }
        for (int pattern = 0; pattern < patterns; ++pattern) {
            if (is_codeword(pattern)) moves_[pattern] = kItself;
            for (int e = 0; e < group; ++e)
                for (int by = 1; by <= 2; ++by)
                    if (is_codeword(pattern + moved(pattern / kPower[e] % 3, e, by)))
                        moves_[pattern] |= 1 << (2 * e + by - 1);
        }
    }

    uint16_t code(float pattern) const { return code_[int(pattern)]; }

    // Of equal codewords, the one with the smallest moves wins: moves are digits of a number, the first digit the lowest.
    // Lanes that are not wanted may get any codeword.
    Nearest nearest(const Costs& costs, const Mask& wanted) const {
        Lanes pattern = costs.digit[0];
        for (int e = 1; e < group; ++e) pattern += costs.digit[e] * Lanes(float(kPower[e]));
        int32_t words[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) words[lane] = moves_[int(pattern[lane])];
        const Ints moves = load_ints(words);

        // below zero where the pattern is a codeword itself, so that nothing is better
        Lanes best = select(has(moves, kItself), -1.0f, kInfinity), change = 0.0f;
        Lanes least = kInfinity, second = kInfinity;
        for (int e = 0; e < group; ++e) {
            const float power = float(kPower[e]);
            const Lanes changes[2] = {select(costs.digit[e] > Lanes(1.0f), -2 * power, power),
                                      select(costs.digit[e] > Lanes(0.0f), -power, 2 * power)};
            for (int by = 0; by < 2; ++by) {
                const Lanes added = select(has(moves, 1 << (2 * e + by)), costs.added[e][by], kInfinity);
                change = select(added < best, changes[by], change);
                best = minimum(added, best);
            }
            const Lanes cheaper = minimum(costs.added[e][0], costs.added[e][1]);
            second = minimum(second, maximum(least, cheaper));
            least = minimum(least, cheaper);
        }
        Nearest found{maximum(best, 0.0f), pattern + change};
        const Lanes two = select(wanted, least + second, kInfinity);
        int unsure[kLanes + 1], count = 0;
        for (int lane = 0; lane < kLanes; ++lane) {
            unsure[count] = lane;
            count += two[lane] <= best[lane];
        }
        for (int i = 0; i < count; ++i) look_further(costs, unsure[i], least[unsure[i]], int(pattern[unsure[i]]), found);
        return found;
    }

  private:
    static constexpr uint16_t kNone = 0xffff;
    static constexpr int kItself = 1 << 2 * group;
    static constexpr int kPower[group] = {1, 3, 9, 27, 81, 243, 729, 2187};

    std::vector<uint16_t> code_;
    std::vector<int32_t> moves_;  // bit 2 e + by - 1: moving digit e gives a codeword

    bool is_codeword(int pattern) const { return code_[pattern] != kNone; }
    static int moved(int digit, int e, int by) { return ((digit + by) % 3 - digit) * kPower[e]; }

    static Mask has(const Ints& words, int bit) {
        Mask mask;
        for (int p = 0; p < kParts; ++p) mask.part[p] = (words.part[p] & bit) != 0;
        return mask;
    }

    // One lane's search among the codewords that need several moves.
    struct Search {
        const TernaryCodewords& book;
        struct Move {
            float added;
            int change, next;  // next: the first move of a later digit
        } moves[2 * group + 2];
        int count, start, pattern;
        float best, least;  // least: what a move adds at least

        void extend(int from, float added, int at, bool several) {
            for (int m = from; m < count; ++m) {
                const float sum = added + moves[m].added;
                if (sum > best) continue;
                const int to = at + moves[m].change;
                if (several && book.is_codeword(to) && (sum < best || smaller_moves(to, pattern))) {
                    best = sum;
                    pattern = to;
                }
                if (sum + least <= best) extend(moves[m].next, sum, to, true);
            }
        }

        bool smaller_moves(int a, int b) const {
            for (int e = group - 1; e >= 0; --e) {
                const auto move = [&](int to) { return (to / kPower[e] % 3 - start / kPower[e] % 3 + 3) % 3; };
                if (move(a) != move(b)) return move(a) < move(b);
            }
            return false;
        }
    };

    void look_further(const Costs& costs, int lane, float least, int pattern, Nearest& found) const {
        Search search{*this, {}, 0, pattern, int(found.pattern[lane]), found.added[lane], least};
        for (int e = 0; e < group; ++e) {
            const int first = search.count, digit = int(costs.digit[e][lane]);
            for (int by = 1; by <= 2; ++by) {
                const float added = costs.added[e][by - 1][lane];
                search.moves[search.count] = {added, moved(digit, e, by), 0};
                search.count += added + least <= search.best;
            }
            search.moves[first].next = search.moves[first + 1].next = search.count;
        }
        search.extend(0, 0.0f, pattern, false);
        found.added[lane] = search.best;
        found.pattern[lane] = float(search.pattern);
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

// The search for what eight weights should hold in a codebook format: vectors, signs and shift, by the whole curvature
// of the eight (quantization/vector_rounding.py explains what for).

#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lanes.hpp"
#include "vector_rounding.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kSignRounds = 4;  // of trying other signs, each with a search of the codebook

// to[i] += factor · from[i]
static inline void add(float* to, const float* from, float factor, int count) {
    for (int i = 0; i < count; ++i) to[i] += factor * from[i];
}

// A symmetric curvature of the eight weights of a unit.
struct Metric {
    float of[kUnit][kUnit];

    static Metric block(const float* matrix, int64_t width, int64_t start) {
        Metric metric;
        for (int j = 0; j < kUnit; ++j) std::memcpy(metric.of[j], matrix + (start + j) * width + start, sizeof metric.of[j]);
        return metric;
    }

    // Returns the curvature of a unit after all later units were chosen: L · D · Lᵀ, of the unit's own block of the factors.
    static Metric conditional(const float* factor, const float* pivots, int64_t width, int64_t start) {
        Metric metric;
        const auto lower = [&](int j, int k) { return factor[(start + j) * width + start + k]; };
        for (int j = 0; j < kUnit; ++j)
            for (int k = 0; k < kUnit; ++k) {
                float sum = 0;
                for (int i = 0; i <= std::min(j, k); ++i) sum += lower(j, i) * pivots[start + i] * lower(k, i);
                metric.of[j][k] = sum;
            }
        return metric;
    }

    void times(const float* x, float* result) const {
        std::fill(result, result + kUnit, 0.0f);
        for (int j = 0; j < kUnit; ++j) add(result, of[j], x[j], kUnit);
    }

    float length(const float* x) const {
        float through[kUnit], sum = 0;
        times(x, through);
        for (int j = 0; j < kUnit; ++j) sum += x[j] * through[j];
        return sum;
    }
};

// What a unit holds. levels: ± number + shift of each weight. error: the square of its distance from what is wanted.
struct Unit {
    uint16_t vectors[kUnit / 4];
    uint8_t minus[kUnit];
    uint8_t shift;
    float levels[kUnit];
    float error;
};

// The vector v with the least vᵀ · quadratic · v - 2 · linear · v, of those that were looked at: one in each lane.
template <int group>
class Nearest {
   public:
    Nearest(const float (&quadratic)[group][group], const float (&linear)[group]) {
        for (int j = 0; j < group; ++j) {
            quadratic_[j][j] = quadratic[j][j];
            for (int i = 0; i < j; ++i) quadratic_[j][i] = 2 * quadratic[j][i];
            linear_[j] = 2 * linear[j];
        }
    }

    // v: sixteen vectors, of which the first one is number `first`.
    void look_at(const Lanes (&v)[group], int first) {
        Lanes score = 0.0f;
        for (int j = 0; j < group; ++j) {
            Lanes sum = Lanes(quadratic_[j][j]) * v[j] - Lanes(linear_[j]);
            for (int i = 0; i < j; ++i) sum += Lanes(quadratic_[j][i]) * v[i];
            score += sum * v[j];
        }
        const Mask better = score < least_;
        least_ = select(better, score, least_);
        where_ = select(better, float(first), where_);
    }

    int number() const {
        int lane = 0;
        for (int other = 1; other < kLanes; ++other)
            if (least_[other] < least_[lane]) lane = other;
        return int(where_[lane]) + lane;
    }

   private:
    float quadratic_[group][group], linear_[group];
    Lanes least_ = std::numeric_limits<float>::infinity(), where_ = 0.0f;
};

static Lanes from_bytes(const int8_t* bytes) {
    typedef int8_t ByteRegister __attribute__((vector_size(kRegister)));
    Lanes result;
    for (int p = 0; p < kParts; ++p) {
        ByteRegister part;
        std::memcpy(&part, bytes + p * kRegister, kRegister);
        result.part[p] = __builtin_convertvector(part, FloatRegister);
    }
    return result;
}

// Returns the entry v with the least vᵀ · quadratic · v - 2 · linear · v: of all, or of those near the target.
template <int group>
static int nearest_vector(const VectorCodebook& codebook, const float (&quadratic)[group][group], const float (&linear)[group],
                          const float (&target)[group]) {
    Nearest<group> nearest(quadratic, linear);
    Lanes v[group];
    if (group == kUnit && codebook.near) {
        int64_t pattern = 0;
        for (int k = group - 1; k >= 0; --k)
            pattern = 3 * pattern + (target[k] > codebook.between[0]) + (target[k] > codebook.between[1]);
        const int8_t* numbers = codebook.neighbours + pattern * codebook.near * kUnit;
        for (int first = 0; first < codebook.near; first += kLanes) {
            for (int j = 0; j < group; ++j, numbers += kLanes) v[j] = from_bytes(numbers);
            nearest.look_at(v, first);
        }
        return codebook.neighbour_entries[pattern * codebook.near + nearest.number()];
    }
    for (int first = 0; first < codebook.entries; first += kLanes) {
        for (int j = 0; j < group; ++j)
            std::memcpy(&v[j], codebook.vectors + int64_t(j) * codebook.entries + first, sizeof(Lanes));
        nearest.look_at(v, first);
    }
    return nearest.number();
}

// The search for the best vectors and signs of a unit, for one shift.
template <int group>
class Search {
   public:
    Search(const VectorCodebook& codebook, const Metric& metric, const float* wanted) : codebook_(codebook), metric_(metric) {
        for (int k = 0; k < kUnit; ++k) {
            wanted_[k] = wanted[k];
            sign_[k] = codebook.signs != Signs::kNone && wanted[k] < 0 ? -1.0f : 1.0f;
        }
        if (codebook.signs == Signs::kEven) make_even();
    }

    void run(Unit& unit) {
        for (int half = kUnit / group - 1; half >= 0; --half) choose(half);
        for (int round = 0; round < kSignRounds; ++round) {
            if (group < kUnit)
                for (int half = kUnit / group - 1; half >= 0; --half) choose(half);
            if (!flip_signs()) break;
            if (group == kUnit) choose(0);
        }
        for (int half = 0; half < kUnit / group; ++half) unit.vectors[half] = uint16_t(entries_[half]);
        for (int k = 0; k < kUnit; ++k) unit.minus[k] = sign_[k] < 0, unit.levels[k] = wanted_[k] - missed_[k];
        unit.error = metric_.length(missed_);
    }

   private:
    void make_even() {
        bool odd = false;
        int least = 0;
        for (int k = 0; k < kUnit; ++k) {
            odd = odd != (sign_[k] < 0);
            if (metric_.of[k][k] * std::fabs(wanted_[k]) < metric_.of[least][least] * std::fabs(wanted_[least])) least = k;
        }
        if (odd) sign_[least] = -sign_[least];
    }

    // Chooses one vector while the rest of the unit stays. What was not chosen yet misses nothing.
    void choose(int half) {
        const int start = half * group;
        float quadratic[group][group], linear[group], target[group], rest[kUnit], through[kUnit];
        std::memcpy(rest, missed_, sizeof rest);
        for (int k = start; k < start + group; ++k) rest[k] = wanted_[k];
        metric_.times(rest, through);
        for (int j = 0; j < group; ++j) {
            linear[j] = sign_[start + j] * through[start + j];
            target[j] = sign_[start + j] * wanted_[start + j];
            for (int i = 0; i < group; ++i)
                quadratic[j][i] = sign_[start + j] * sign_[start + i] * metric_.of[start + j][start + i];
        }
        entries_[half] = nearest_vector<group>(codebook_, quadratic, linear, target);
        for (int k = 0; k < group; ++k) {
            number_[start + k] = codebook_.vectors[int64_t(k) * codebook_.entries + entries_[half]];
            missed_[start + k] = wanted_[start + k] - sign_[start + k] * number_[start + k];
        }
    }

    // Turns the sign, or the two signs, that lower the error most. Returns whether there were any.
    bool flip_signs() {
        if (codebook_.signs == Signs::kNone) return false;
        float through[kUnit], step[kUnit], gain[kUnit];
        metric_.times(missed_, through);
        for (int k = 0; k < kUnit; ++k) {
            step[k] = 2 * sign_[k] * number_[k];
            gain[k] = -step[k] * (2 * through[k] + step[k] * metric_.of[k][k]);
        }
        int first = -1, second = -1;
        float best = 1e-6f * metric_.length(missed_);
        for (int k = 0; k < kUnit; ++k) {
            if (codebook_.signs == Signs::kFree && gain[k] > best) best = gain[k], first = k;
            if (codebook_.signs == Signs::kEven)
                for (int j = 0; j < k; ++j) {
                    const float both = gain[j] + gain[k] - 2 * step[j] * step[k] * metric_.of[j][k];
                    if (both > best) best = both, first = j, second = k;
                }
        }
        for (const int k : {first, second})
            if (k >= 0) sign_[k] = -sign_[k], missed_[k] += step[k];
        return first >= 0;
    }

    const VectorCodebook& codebook_;
    const Metric& metric_;
    float wanted_[kUnit], sign_[kUnit], number_[kUnit] = {}, missed_[kUnit] = {};
    int entries_[kUnit / group] = {};
};

// Finds what a unit should hold. wanted: the weights divided by their scale. shift: the only one to try, or -1 for all.
static void find(const VectorCodebook& codebook, const Metric& metric, const float* wanted, int shift, Unit& best) {
    best.error = std::numeric_limits<float>::infinity();
    const int first = std::max(shift, 0), last = shift >= 0 ? shift : std::max(codebook.shift_count, 1) - 1;
    for (int number = first; number <= last; ++number) {
        const float by = codebook.shift_count ? codebook.shifts[number] : 0.0f;
        float shifted[kUnit];
        Unit unit;
        for (int k = 0; k < kUnit; ++k) shifted[k] = wanted[k] - by;
        codebook.group == 8 ? Search<8>(codebook, metric, shifted).run(unit) : Search<4>(codebook, metric, shifted).run(unit);
        for (int k = 0; k < kUnit; ++k) unit.levels[k] += by;
        unit.shift = uint8_t(number);
        if (unit.error < best.error) best = unit;
    }
}

}  // namespace thriftbit::THRIFTBIT_ISA

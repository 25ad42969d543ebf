#include "vector_rounding.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kWidestSubBlock = 32;
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

static int shift_of(const VectorCodebook& codebook, const VectorCodes& codes, int64_t unit) {
    return codebook.shift_count && !codebook.free_shifts ? codes.shifts[unit] : -1;
}

// unit: its number, counted over all rows.
static void store(const VectorCodebook& codebook, const Unit& found, const VectorCodes& codes, int64_t unit) {
    std::memcpy(codes.vectors + unit * (kUnit / codebook.group), found.vectors, size_t(kUnit / codebook.group) * 2);
    std::memcpy(codes.signs + unit * kUnit, found.minus, kUnit);
    codes.shifts[unit] = found.shift;
}

static void stored(const VectorCodebook& codebook, const VectorCodes& codes, int64_t unit, float* levels) {
    for (int k = 0; k < kUnit; ++k) {
        const int entry = codes.vectors[(unit * kUnit + k) / codebook.group];
        const float number = codebook.vectors[int64_t(k % codebook.group) * codebook.entries + entry];
        levels[k] = codes.signs[unit * kUnit + k] ? -number : number;
        if (codebook.shift_count) levels[k] += codebook.shifts[codes.shifts[unit]];
    }
}

static void feed_back(int64_t n, int64_t width, const float* weights, const float* carried, const float* factor,
                      const float* pivots, const float* rows, const float* scales, const VectorCodebook& codebook,
                      VectorCodes codes, float* errors) {
    std::vector<float> from_columns(size_t(n * kUnit)), from_rows(size_t(n * kUnit));
    const int64_t units = width / kUnit;
    for (int64_t unit = units - 1; unit >= 0; --unit) {
        const int64_t start = unit * kUnit;
        const Metric metric = Metric::conditional(factor, pivots, width, start);
        std::fill(from_rows.begin(), from_rows.end(), 0.0f);
        for (int64_t i = 0; i < n; ++i) {
            float* const own = from_columns.data() + i * kUnit;
            std::memcpy(own, carried + i * width + start, kUnit * 4);
            for (int64_t k = start + kUnit; k < width; ++k) add(own, factor + k * width + start, errors[i * width + k], kUnit);
            for (int j = kUnit - 1; j >= 0; --j)  // in the unit all weights are chosen at once
                for (int k = j + 1; k < kUnit; ++k) own[j] -= factor[(start + k) * width + start + j] * own[k];
        }
        for (int64_t i = n - 1; i >= 0; --i) {
            const float *own = weights + i * width + start, *correction = from_columns.data() + i * kUnit;
            const float scale = scales[i * units + unit], by = inverse(scale);
            float wanted[kUnit];
            for (int k = 0; k < kUnit; ++k) wanted[k] = by * (own[k] + correction[k] + from_rows[size_t(i * kUnit + k)]);
            Unit found;
            find(codebook, metric, wanted, shift_of(codebook, codes, i * units + unit), found);
            store(codebook, found, codes, i * units + unit);
            float felt[kUnit];
            for (int k = 0; k < kUnit; ++k) {
                const float error = errors[i * width + start + k] = own[k] - scale * found.levels[k];
                felt[k] = error + correction[k];
            }
            if (rows)
                for (int64_t p = 0; p < i; ++p) add(from_rows.data() + p * kUnit, felt, rows[i * n + p], kUnit);
        }
    }
}

// gradient[p] -= rows[i][p] · felt, in `count` columns of every row p; without rows, in row i alone.
static void pull(float* gradient, int64_t n, int64_t width, int64_t i, const float* rows, const float* felt, int count) {
    if (!rows)
        add(gradient + i * width, felt, -1.0f, count);
    else
        for (int64_t p = 0; p < n; ++p) add(gradient + p * width, felt, -rows[i * n + p], count);
}

static int64_t descend(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverses, const float* rows,
                       const float* scales, const VectorCodebook& codebook, VectorCodes codes, float* errors) {
    std::vector<float> moved(size_t(n * width), 0.0f), own(size_t(n * kUnit));
    const int64_t units = width / kUnit;
    int64_t changes = 0;
    for (int64_t unit = 0; unit < units; ++unit) {
        const int64_t start = unit * kUnit;
        const Metric metric = Metric::block(columns, width, start);
        for (int64_t i = 0; i < n; ++i) std::memcpy(own.data() + i * kUnit, gradient + i * width + start, kUnit * 4);
        for (int64_t i = 0; i < n; ++i) {
            float felt[kUnit] = {};
            bool any = false;
            for (int64_t k = 0; k < start; ++k)
                if (const float step = moved[size_t(i * width + k)]; step != 0)
                    any = true, add(felt, columns + k * width + start, step, kUnit);
            if (any) pull(own.data(), n, kUnit, i, rows, felt, kUnit);
        }
        for (int64_t i = 0; i < n; ++i) {
            const float bend = rows ? rows[i * n + i] : 1.0f, scale = scales[i * units + unit];
            if (!(bend > 0) || scale == 0) continue;
            float away[kUnit] = {}, wanted[kUnit], levels[kUnit], step[kUnit], felt[kUnit];
            for (int k = 0; k < kUnit; ++k)
                add(away, inverses + (unit * kUnit + k) * kUnit, own[size_t(i * kUnit + k)] / (bend * scale), kUnit);
            stored(codebook, codes, i * units + unit, levels);
            for (int k = 0; k < kUnit; ++k) wanted[k] = levels[k] + away[k];
            Unit found;
            find(codebook, metric, wanted, shift_of(codebook, codes, i * units + unit), found);
            if (!(found.error < 0.99999f * metric.length(away))) continue;
            ++changes;
            store(codebook, found, codes, i * units + unit);
            for (int k = 0; k < kUnit; ++k) {
                step[k] = scale * (found.levels[k] - levels[k]);
                moved[size_t(i * width + start + k)] = step[k];
                errors[i * width + start + k] -= step[k];
            }
            metric.times(step, felt);
            pull(own.data(), n, kUnit, i, rows, felt, kUnit);
        }
        for (int64_t i = 0; i < n; ++i) std::memcpy(gradient + i * width + start, own.data() + i * kUnit, kUnit * 4);
    }
    return changes;
}

// One sub-block of one row: the weights that would be best for it, and what it holds.
struct SubBlock {
    const VectorCodebook& codebook;
    int width;
    const float* factor;
    Metric metrics[kWidestSubBlock / kUnit];
    float wanted[kWidestSubBlock];

    // Chooses all units for a scale, each compensating for the errors of those after it. Returns the error; as soon as it
    // is above `limit`, what it is so far.
    float round(float scale, int shift, float limit, Unit* units) const {
        float errors[kWidestSubBlock], total = 0;
        for (int start = width - kUnit; start >= 0; start -= kUnit) {
            float correction[kUnit] = {}, target[kUnit];
            for (int k = start + kUnit; k < width; ++k) add(correction, factor + k * width + start, errors[k], kUnit);
            for (int j = kUnit - 1; j >= 0; --j)
                for (int k = j + 1; k < kUnit; ++k) correction[j] -= factor[(start + k) * width + start + j] * correction[k];
            for (int k = 0; k < kUnit; ++k) target[k] = (wanted[start + k] + correction[k]) / scale;
            Unit& unit = units[start / kUnit];
            find(codebook, metrics[start / kUnit], target, shift, unit);
            for (int k = 0; k < kUnit; ++k) errors[start + k] = wanted[start + k] - scale * unit.levels[k];
            total += scale * scale * unit.error;
            if (total > limit) break;
        }
        return total;
    }
};

static int64_t choose_scales(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverse,
                             const float* factor, const float* pivots, const float* rows, const float* d, const float* table,
                             int table_count, int reach, const VectorCodebook& codebook, uint8_t* chosen, VectorCodes codes,
                             float* errors) {
    const int count = int(width), units = count / kUnit;
    const int shifts = codebook.shift_count && !codebook.free_shifts ? codebook.shift_count : 0;
    SubBlock block{codebook, count, factor, {}, {}};
    for (int unit = 0; unit < units; ++unit) block.metrics[unit] = Metric::conditional(factor, pivots, width, unit * kUnit);
    int64_t changes = 0;
    for (int64_t i = 0; i < n; ++i) {
        const float bend = rows ? rows[i * n + i] : 1.0f;
        if (!(bend > 0) || d[i] == 0) continue;
        float before[kWidestSubBlock], away[kWidestSubBlock] = {}, least = 0;
        float* const own = gradient + i * width;
        for (int unit = 0; unit < units; ++unit) stored(codebook, codes, i * units + unit, before + unit * kUnit);
        for (int k = 0; k < count; ++k) add(away, inverse + k * width, own[k] / bend, count);
        for (int k = 0; k < count; ++k) {
            before[k] *= d[i] * table[chosen[i]];
            block.wanted[k] = before[k] + away[k];
            least += away[k] * own[k] / bend;
        }
        least *= 0.99999f;
        Unit best[kWidestSubBlock / kUnit], tried[kWidestSubBlock / kUnit];
        int entry = -1;
        const int from = std::max(int(chosen[i]) - reach, 0), to = std::min(int(chosen[i]) + reach, table_count - 1);
        for (int candidate = from; candidate <= to; ++candidate)
            for (int shift = shifts ? 0 : -1; shift < shifts; ++shift) {
                const float scale = d[i] * table[candidate];
                if (scale == 0) continue;
                const float error = block.round(scale, shift, least, tried);
                if (error < least) least = error, entry = candidate, std::copy(tried, tried + units, best);
            }
        if (entry < 0) continue;
        ++changes;
        chosen[i] = uint8_t(entry);
        float step[kWidestSubBlock], felt[kWidestSubBlock] = {};
        for (int unit = 0; unit < units; ++unit) store(codebook, best[unit], codes, i * units + unit);
        for (int k = 0; k < count; ++k) {
            step[k] = d[i] * table[entry] * best[k / kUnit].levels[k % kUnit] - before[k];
            errors[i * width + k] -= step[k];
        }
        for (int k = 0; k < count; ++k) add(felt, columns + k * width, step[k], count);
        pull(gradient, n, width, i, rows, felt, count);
    }
    return changes;
}

static const bool registered = [] {
    vector_rounding_kernels[THRIFTBIT_SET] = {feed_back, descend, choose_scales};
    return true;
}();

}  // namespace thriftbit::THRIFTBIT_ISA

#include "vector_rounding.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include "vector_search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kWidestSubBlock = 32;

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

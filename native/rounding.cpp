#include "rounding.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "lanes.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kWidest = 256;  // of blocks that share a scale

// to[i] += factor · from[i]
static inline void add(float* to, const float* from, float factor, int64_t count) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

static inline int nearest_code(const Table& table, float y) {
    if (table.whole) {
        const float code = std::nearbyint(y - table.values[0]);
        return code >= 0 ? std::min(int(std::min(code, 255.0f)), table.count - 1) : 0;
    }
    int code = 0;
    for (int next = 1; next < table.count; ++next) code += y > 0.5f * (table.values[next - 1] + table.values[next]);
    return code;
}

static void feed_back(int64_t n, int64_t width, const float* weights, const float* carried, const float* columns,
                      const float* rows, const float* scales, const float* offsets, Table table, uint8_t* codes,
                      float* errors) {
    std::vector<float> from_columns(n), from_rows(n);
    for (int64_t j = width - 1; j >= 0; --j) {
        std::memcpy(from_columns.data(), carried + j * n, size_t(n) * 4);
        for (int64_t k = j + 1; k < width; ++k) add(from_columns.data(), errors + k * n, columns[k * width + j], n);
        std::fill(from_rows.begin(), from_rows.end(), 0.0f);
        for (int64_t i = n - 1; i >= 0; --i) {
            const int64_t at = j * n + i;
            const float wanted = weights[at] + from_columns[i] + from_rows[i];
            codes[at] = uint8_t(nearest_code(table, (wanted - offsets[at]) * inverse(scales[at])));
            errors[at] = weights[at] - (scales[at] * table.values[codes[at]] + offsets[at]);
            if (rows) add(from_rows.data(), rows + i * n, errors[at] + from_columns[i], i);
        }
    }
}

static int64_t descend(int64_t n, int64_t width, float* gradient, const float* columns, const float* rows, const float* scales,
                       const float* offsets, Table table, uint8_t* codes, float* errors) {
    std::vector<float> moved(size_t(width * n), 0.0f), felt(n);
    int64_t changes = 0;
    for (int64_t j = 0; j < width; ++j) {
        float* const own = gradient + j * n;
        std::fill(felt.begin(), felt.end(), 0.0f);
        for (int64_t k = 0; k < j; ++k) add(felt.data(), moved.data() + k * n, columns[k * width + j], n);
        if (!rows)
            add(own, felt.data(), -1.0f, n);
        else
            for (int64_t i = 0; i < n; ++i)
                if (felt[i] != 0) add(own, rows + i * n, -felt[i], n);
        const float curvature = columns[j * width + j];
        for (int64_t i = 0; i < n; ++i) {
            const int64_t at = j * n + i;
            const float bend = (rows ? rows[i * n + i] : 1.0f) * curvature, scale = scales[at];
            if (!(bend > 0) || scale == 0) continue;
            const float now = scale * table.values[codes[at]] + offsets[at];
            const int code = nearest_code(table, (now + own[i] / bend - offsets[at]) / scale);
            const float step = scale * table.values[code] + offsets[at] - now;
            if (code == codes[at] || !(step * (bend * step - 2 * own[i]) < 0)) continue;
            ++changes;
            codes[at] = uint8_t(code);
            errors[at] -= step;
            moved[at] += step;
            if (rows)
                add(own, rows + i * n, -step * curvature, n);
            else
                own[i] -= step * curvature;
        }
    }
    return changes;
}

// One block of one row: the weights that would be best for it, and the weights that it has.
struct Block {
    int width;
    const float *columns, *factor, *pivots;
    Table table;
    float wanted[kWidest], values[kWidest];
    uint8_t codes[kWidest];
    float scale, offset, error;

    // Returns (wanted - x)ᵀ · columns · (wanted - x).
    float error_of(const float* x) const {
        float sums[kWidest] = {}, error = 0;
        for (int k = 0; k < width; ++k) add(sums, factor + k * width, wanted[k] - x[k], k + 1);
        for (int k = 0; k < width; ++k) error += pivots[k] * sums[k] * sums[k];
        return error;
    }

    bool adopt(float s, float o, const uint8_t* with, const float* x, float left) {
        if (!(left < error)) return false;
        scale = s, offset = o, error = left;
        if (with != codes) std::memcpy(codes, with, size_t(width));
        std::memcpy(values, x, size_t(width) * 4);
        return true;
    }

    // Tries sixteen scales and offsets side by side, each rounded with feedback inside the block. Keeps the best one if
    // it is better than the present scale and offset.
    bool try_all(const Lanes& s, const Lanes& o) {
        Lanes carried[kWidest], x[kWidest], chosen[kWidest], left = 0.0f;
        const Lanes inverse_s = inverse(s);
        for (int k = 0; k < width; ++k) carried[k] = 0.0f;
        for (int k = width - 1; k >= 0; --k) {
            const Lanes target = Lanes(wanted[k]) + carried[k], y = (target - o) * inverse_s;
            Lanes value = table.values[0];
            chosen[k] = 0.0f;
            if (table.whole) {
                value = nearest(y, table.values[0], table.values[table.count - 1]);
                chosen[k] = value - Lanes(table.values[0]);
            } else {
                for (int next = 1; next < table.count; ++next) {
                    const Mask above = y > Lanes(0.5f * (table.values[next - 1] + table.values[next]));
                    value = select(above, table.values[next], value);
                    chosen[k] = select(above, float(next), chosen[k]);
                }
            }
            x[k] = s * value + o;
            const Lanes missed = target - x[k], error = Lanes(wanted[k]) - x[k];
            left += Lanes(pivots[k]) * missed * missed;
            for (int j = 0; j < k; ++j) carried[j] += Lanes(factor[k * width + j]) * error;
        }
        int best = 0;
        for (int lane = 1; lane < kLanes; ++lane)
            if (left[lane] < left[best]) best = lane;
        uint8_t with[kWidest];
        float values_of_best[kWidest];
        for (int k = 0; k < width; ++k) with[k] = uint8_t(chosen[k][best]), values_of_best[k] = x[k][best];
        return adopt(s[best], o[best], with, values_of_best, left[best]);
    }

    // Fits scale and offset to the present codes by least squares.
    void fit(bool with_offset) {
        float levels[kWidest], curved[kWidest] = {}, curved_one[kWidest] = {};
        for (int k = 0; k < width; ++k) levels[k] = table.values[codes[k]];
        for (int k = 0; k < width; ++k) {
            add(curved, columns + k * width, levels[k], width);
            add(curved_one, columns + k * width, 1, width);
        }
        double ll = 0, lx = 0, l1 = 0, x1 = 0, n1 = 0;
        for (int k = 0; k < width; ++k) {
            ll += double(levels[k]) * curved[k], lx += double(wanted[k]) * curved[k], l1 += curved[k];
            x1 += double(wanted[k]) * curved_one[k], n1 += curved_one[k];
        }
        const double determinant = with_offset ? ll * n1 - l1 * l1 : ll;
        if (!(determinant > 1e-30)) return;
        const double exact = with_offset ? (lx * n1 - x1 * l1) / determinant : lx / ll;
        const float s = half(float(exact)), o = with_offset ? half(float((x1 - s * l1) / n1)) : 0.0f;
        if (!std::isfinite(s) || !std::isfinite(o)) return;
        float x[kWidest];
        for (int k = 0; k < width; ++k) x[k] = s * levels[k] + o;
        adopt(s, o, codes, x, error_of(x));
    }
};

static void candidates(const Block& block, const ScaleChoice& choice, int64_t row, Lanes& s, Lanes& o) {
    for (int lane = 0; lane < kLanes; ++lane) {
        s[lane] = block.scale, o[lane] = block.offset;
        if (choice.kind == ScaleKind::kHalf) {
            s[lane] = half(block.scale * (1 + 0.015f * float(lane - 8)));
        } else if (choice.kind == ScaleKind::kHalfAndHalf) {
            // the two ends of the range move independently of each other
            const float low = 0.3f * (float(lane / 4) - 1.5f), high = 0.3f * (float(lane % 4) - 1.5f);
            const int top = block.table.count - 1;
            s[lane] = half(block.scale * (1 + (high - low) / float(top)));
            o[lane] = half(block.offset + block.scale * low);
        } else if (choice.kind == ScaleKind::kTable) {
            const auto present = std::lower_bound(choice.table, choice.table + choice.table_count, block.scale) - choice.table;
            const auto entry = std::clamp<int64_t>(present + lane - kLanes / 2, 0, choice.table_count - 1);
            s[lane] = choice.table[entry] != 0 ? choice.table[entry] : block.scale;
        } else if (lane < 15) {
            const float k = std::nearbyint(block.scale / choice.step[row]) + float(lane / 3 - 2);
            s[lane] = choice.step[row] * std::min(std::max(k, choice.lowest), choice.highest);
            if (choice.kind == ScaleKind::kTwoMultiples && choice.min_step[row] > 0) {
                const float m = std::nearbyint(-block.offset / choice.min_step[row]) + float(lane % 3 - 1);
                o[lane] = -choice.min_step[row] * std::min(std::max(m, 0.0f), choice.highest_min);
            }
        }
        if (!std::isfinite(s[lane]) || !std::isfinite(o[lane])) s[lane] = block.scale, o[lane] = block.offset;
    }
}

static int64_t choose_scales(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverse_columns,
                             const float* factor, const float* pivots, const float* rows, ScaleChoice choice, Table table,
                             float* scales, float* offsets, uint8_t* codes, float* errors) {
    int64_t changes = 0;
    Block block{int(width), columns, factor, pivots, table, {}, {}, {}, 0, 0, 0};
    const bool multiples = choice.kind == ScaleKind::kMultiple || choice.kind == ScaleKind::kTwoMultiples;
    const bool halves = choice.kind == ScaleKind::kHalf || choice.kind == ScaleKind::kHalfAndHalf;
    for (int64_t i = 0; i < n; ++i) {
        const float bend = rows ? rows[i * n + i] : 1.0f;
        if (!(bend > 0) || scales[i] == 0 || (multiples && choice.step[i] == 0)) continue;
        float before[kWidest];
        float* const own = gradient + i * width;
        block.scale = scales[i], block.offset = offsets[i];
        std::memcpy(block.codes, codes + i * width, size_t(width));
        for (int k = 0; k < width; ++k)
            before[k] = block.wanted[k] = block.values[k] = block.scale * table.values[block.codes[k]] + block.offset;
        for (int k = 0; k < width; ++k) add(block.wanted, inverse_columns + k * width, own[k] / bend, width);
        const float least = block.error = block.error_of(block.values);
        if (halves) block.fit(choice.kind == ScaleKind::kHalfAndHalf);
        Lanes s, o;
        candidates(block, choice, i, s, o);
        if (block.try_all(s, o) && halves) block.fit(choice.kind == ScaleKind::kHalfAndHalf);
        if (!(block.error < least)) continue;
        ++changes;
        scales[i] = block.scale, offsets[i] = block.offset;
        std::memcpy(codes + i * width, block.codes, size_t(width));
        float step[kWidest], felt[kWidest] = {};
        for (int k = 0; k < width; ++k) step[k] = block.values[k] - before[k], errors[i * width + k] -= step[k];
        for (int k = 0; k < width; ++k) add(felt, columns + k * width, step[k], width);
        if (!rows)
            add(own, felt, -1.0f, width);
        else
            for (int64_t p = 0; p < n; ++p) add(gradient + p * width, felt, -rows[i * n + p], width);
    }
    return changes;
}

// Solves for the two changes that lower the cost most; the second one is 0 without mins.
static void best_changes(const double (&bend)[2][2], const double (&slope)[2], bool with_mins, double (&changes)[2]) {
    const double determinant = bend[0][0] * bend[1][1] - bend[0][1] * bend[0][1];
    if (with_mins && determinant > 1e-9 * bend[0][0] * bend[1][1]) {
        changes[0] = (slope[0] * bend[1][1] - slope[1] * bend[0][1]) / determinant;
        changes[1] = (slope[1] * bend[0][0] - slope[0] * bend[0][1]) / determinant;
    } else {
        changes[0] = bend[0][0] > 0 ? slope[0] / bend[0][0] : 0;
        changes[1] = 0;
    }
}

static int64_t fit_steps(int64_t n, int64_t width, float* gradient, const float* columns, const float* rows, const float* levels,
                         const float* mins, float* steps, float* min_steps, float* errors) {
    int64_t changed = 0;
    std::vector<float> moves(size_t(2 * width)), felt(size_t(2 * width));  // by one of each step
    for (int64_t i = 0; i < n; ++i) {
        const float bend_of_row = rows ? rows[i * n + i] : 1.0f;
        if (!(bend_of_row > 0) || steps[i] == 0) continue;
        float* const own = gradient + i * width;
        std::memcpy(moves.data(), levels + i * width, size_t(width) * 4);
        for (int64_t k = 0; k < width; ++k) moves[size_t(width + k)] = mins ? -mins[i * width + k] : 0.0f;
        std::fill(felt.begin(), felt.end(), 0.0f);
        double bend[2][2] = {}, slope[2] = {}, changes[2];
        for (int part = 0; part < (mins ? 2 : 1); ++part) {
            const float* const move = moves.data() + part * width;
            for (int64_t k = 0; k < width; ++k) add(felt.data() + part * width, columns + k * width, move[k], width);
            for (int64_t k = 0; k < width; ++k) slope[part] += double(move[k]) * own[k];
        }
        for (int a = 0; a < 2; ++a)
            for (int b = 0; b < 2; ++b)
                for (int64_t k = 0; k < width; ++k)
                    bend[a][b] += double(bend_of_row) * moves[size_t(a * width + k)] * felt[size_t(b * width + k)];
        best_changes(bend, slope, mins && min_steps[i] != 0, changes);
        const float step = half(float(steps[i] + changes[0])), min_step = half(float(min_steps[i] + changes[1]));
        if (!(step * steps[i] > 0) || !(min_step * min_steps[i] >= 0)) continue;
        const float by[2] = {step - steps[i], min_step - min_steps[i]};
        double gain = 0;
        for (int a = 0; a < 2; ++a) gain += by[a] * (2 * slope[a] - bend[a][0] * by[0] - bend[a][1] * by[1]);
        if (!(gain > 0)) continue;
        ++changed;
        steps[i] = step, min_steps[i] = min_step;
        std::vector<float>& total = felt;
        for (int64_t k = 0; k < width; ++k) {
            errors[i * width + k] -= by[0] * moves[size_t(k)] + by[1] * moves[size_t(width + k)];
            total[size_t(k)] = by[0] * felt[size_t(k)] + by[1] * felt[size_t(width + k)];
        }
        if (!rows)
            add(own, total.data(), -1.0f, width);
        else
            for (int64_t p = 0; p < n; ++p) add(gradient + p * width, total.data(), -rows[i * n + p], width);
    }
    return changed;
}

static const bool registered = [] {
    rounding_kernels[THRIFTBIT_SET] = {feed_back, descend, choose_scales, fit_steps};
    return true;
}();

}  // namespace thriftbit::THRIFTBIT_ISA

// The rounding kernels for Python. Arrays are checked here, so that the kernels need no checks.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>

#include <cmath>
#include <optional>

#include "rounding.hpp"

namespace thriftbit {

namespace nb = nanobind;

template <class Number, int dimensions>
using Array = nb::ndarray<Number, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
using Matrix = Array<float, 2>;
using ConstMatrix = Array<const float, 2>;
using ConstVector = Array<const float, 1>;
using Codes = Array<uint8_t, 2>;

template <class Given>
void expect_shape(const Given& array, size_t first, size_t second) {
    if (array.shape(0) != first || array.shape(1) != second) throw nb::value_error("arrays of different shapes");
}

inline Table table_of(const ConstVector& values) {
    const int count = int(values.shape(0));
    if (count < 1 || count > 256) throw nb::value_error("a code has one to 256 values");
    bool whole = true;
    for (int code = 0; code < count; ++code) {
        const float value = values.data()[code];
        whole = whole && value == std::nearbyint(value) && value == values.data()[0] + float(code);
    }
    return {values.data(), count, whole};
}

inline const float* rows_of(const std::optional<ConstMatrix>& rows, size_t n) {
    if (!rows) return nullptr;
    expect_shape(*rows, n, n);
    return rows->data();
}

// current: a function that returns the instruction set in use
template <class Current>
void bind_rounding(nb::module_& module, Current current) {
    using namespace nb::literals;
    module.def(
        "feed_back",
        [current](ConstMatrix weights, ConstMatrix carried, ConstMatrix columns, std::optional<ConstMatrix> rows, ConstMatrix scales,
                  ConstMatrix offsets, ConstVector values, Codes codes, Matrix errors) {
            const size_t width = weights.shape(0), n = weights.shape(1);
            expect_shape(columns, width, width);
            expect_shape(carried, width, n), expect_shape(scales, width, n), expect_shape(offsets, width, n);
            expect_shape(codes, width, n), expect_shape(errors, width, n);
            const Table table = table_of(values);
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            rounding_kernels[current()].feed_back(n, width, weights.data(), carried.data(), columns.data(), by_row, scales.data(),
                                                  offsets.data(), table, codes.data(), errors.data());
        },
        "weights"_a, "carried"_a, "columns"_a, "rows"_a.none(), "scales"_a, "offsets"_a, "values"_a, "codes"_a, "errors"_a);
    module.def(
        "descend",
        [current](Matrix gradient, ConstMatrix columns, std::optional<ConstMatrix> rows, ConstMatrix scales, ConstMatrix offsets,
                  ConstVector values, Codes codes, Matrix errors) {
            const size_t width = gradient.shape(0), n = gradient.shape(1);
            expect_shape(columns, width, width);
            expect_shape(scales, width, n), expect_shape(offsets, width, n);
            expect_shape(codes, width, n), expect_shape(errors, width, n);
            const Table table = table_of(values);
            for (size_t i = 0; i < width * n; ++i)
                if (codes.data()[i] >= table.count) throw nb::value_error("a code without a value");
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            return rounding_kernels[current()].descend(n, width, gradient.data(), columns.data(), by_row, scales.data(), offsets.data(),
                                                       table, codes.data(), errors.data());
        },
        "gradient"_a, "columns"_a, "rows"_a.none(), "scales"_a, "offsets"_a, "values"_a, "codes"_a, "errors"_a);
    module.def(
        "choose_scales",
        [current](Matrix gradient, ConstMatrix columns, ConstMatrix inverse, ConstMatrix factor, ConstVector pivots,
                  std::optional<ConstMatrix> rows, int kind, float lowest, float highest, float highest_min, ConstVector step,
                  ConstVector min_step, ConstVector scale_table, ConstVector values, Array<float, 1> scales, Array<float, 1> offsets, Codes codes,
                  Matrix errors) {
            const size_t n = gradient.shape(0), width = gradient.shape(1);
            if (width > 256 || kind < 0 || kind > 4 || (kind == 4 && scale_table.shape(0) < 1)) throw nb::value_error("no such blocks");
            expect_shape(columns, width, width), expect_shape(inverse, width, width), expect_shape(factor, width, width);
            expect_shape(codes, n, width), expect_shape(errors, n, width);
            if (pivots.shape(0) != width) throw nb::value_error("arrays of different shapes");
            for (const auto size : {step.shape(0), min_step.shape(0), scales.shape(0), offsets.shape(0)})
                if (size != n) throw nb::value_error("arrays of different shapes");
            const Table table = table_of(values);
            for (size_t i = 0; i < width * n; ++i)
                if (codes.data()[i] >= table.count) throw nb::value_error("a code without a value");
            const float* by_row = rows_of(rows, n);
            const ScaleChoice choice{ScaleKind(kind), lowest, highest, highest_min, step.data(), min_step.data(), scale_table.data(),
                                     int(scale_table.shape(0))};
            const nb::gil_scoped_release unlocked;
            return rounding_kernels[current()].choose_scales(n, width, gradient.data(), columns.data(), inverse.data(), factor.data(),
                                                             pivots.data(), by_row, choice, table, scales.data(), offsets.data(),
                                                             codes.data(), errors.data());
        },
        "gradient"_a, "columns"_a, "inverse"_a, "factor"_a, "pivots"_a, "rows"_a.none(), "kind"_a, "lowest"_a, "highest"_a,
        "highest_min"_a, "step"_a, "min_step"_a, "scale_table"_a, "values"_a, "scales"_a, "offsets"_a, "codes"_a, "errors"_a);
    module.def(
        "fit_steps",
        [current](Matrix gradient, ConstMatrix columns, std::optional<ConstMatrix> rows, ConstMatrix levels,
                  std::optional<ConstMatrix> mins, Array<float, 1> steps, Array<float, 1> min_steps, Matrix errors) {
            const size_t n = gradient.shape(0), width = gradient.shape(1);
            expect_shape(columns, width, width), expect_shape(levels, n, width), expect_shape(errors, n, width);
            if (mins) expect_shape(*mins, n, width);
            if (steps.shape(0) != n || min_steps.shape(0) != n) throw nb::value_error("arrays of different shapes");
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            return rounding_kernels[current()].fit_steps(int64_t(n), int64_t(width), gradient.data(), columns.data(), by_row,
                                                         levels.data(), mins ? mins->data() : nullptr, steps.data(),
                                                         min_steps.data(), errors.data());
        },
        "gradient"_a.noconvert(), "columns"_a, "rows"_a.none(), "levels"_a, "mins"_a.none(), "steps"_a.noconvert(),
        "min_steps"_a.noconvert(), "errors"_a.noconvert());
}

}  // namespace thriftbit

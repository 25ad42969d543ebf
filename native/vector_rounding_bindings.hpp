// The kernels of vector_rounding.cpp for Python. Arrays are checked here, so that the kernels need no checks.
#pragma once

#include "rounding_bindings.hpp"
#include "vector_rounding.hpp"

namespace thriftbit {

using Entries = Array<uint16_t, 2>;

using Neighbours = Array<const int8_t, 4>;
using NeighbourEntries = Array<const uint16_t, 2>;

inline VectorCodebook codebook_of(const ConstMatrix& vectors, int signs, const ConstVector& shifts, bool free_shifts,
                                  const Neighbours& neighbours, const NeighbourEntries& entries_near, const ConstVector& between) {
    const int group = int(vectors.shape(0)), entries = int(vectors.shape(1));
    if ((group != 4 && group != 8) || entries < 16 || entries % 16 || entries > 65536) throw nb::value_error("no such codebook");
    if (signs < 0 || signs > 2 || shifts.shape(0) > 256) throw nb::value_error("no such signs or shifts");
    const int shift_count = int(shifts.shape(0));
    VectorCodebook codebook{vectors.data(), entries, group, Signs(signs), shifts.data(), shift_count, free_shifts, {}, {}, 0, {}};
    if (const size_t near = entries_near.shape(1)) {
        const bool placed = neighbours.shape(1) == near / 16 && neighbours.shape(2) == kUnit && neighbours.shape(3) == 16;
        if (group != kUnit || near % 16 || entries_near.shape(0) != kPatterns || neighbours.shape(0) != kPatterns || !placed ||
            between.shape(0) != 2)
            throw nb::value_error("no such neighbours");
        for (size_t i = 0; i < entries_near.size(); ++i)
            if (entries_near.data()[i] >= entries) throw nb::value_error("a neighbour that the codebook lacks");
        codebook.neighbours = neighbours.data(), codebook.neighbour_entries = entries_near.data(), codebook.near = int(near);
        codebook.between[0] = between.data()[0], codebook.between[1] = between.data()[1];
    }
    return codebook;
}

inline VectorCodes codes_of(const VectorCodebook& codebook, size_t n, size_t width, const Entries& vectors, const Codes& signs,
                            const Codes& shifts) {
    if (width % kUnit) throw nb::value_error("columns do not form units");
    expect_shape(vectors, n, width / size_t(codebook.group)), expect_shape(signs, n, width), expect_shape(shifts, n, width / kUnit);
    for (size_t i = 0; i < vectors.size(); ++i)
        if (vectors.data()[i] >= codebook.entries) throw nb::value_error("a vector that the codebook lacks");
    for (size_t i = 0; codebook.shift_count && i < shifts.size(); ++i)
        if (shifts.data()[i] >= codebook.shift_count) throw nb::value_error("a shift that the format lacks");
    return {vectors.data(), signs.data(), shifts.data()};
}

// current: a function that returns the instruction set in use
template <class Current>
void bind_vector_rounding(nb::module_& module, Current current) {
    using namespace nb::literals;
    module.def(
        "vector_feed_back",
        [current](ConstMatrix weights, ConstMatrix carried, ConstMatrix factor, ConstVector pivots, std::optional<ConstMatrix> rows,
                  ConstMatrix scales, ConstMatrix codebook, int sign_kind, ConstVector shift_table, bool free_shifts,
                  Neighbours neighbours, NeighbourEntries entries_near, ConstVector between, Entries vectors, Codes signs,
                  Codes shifts, Matrix errors) {
            const size_t n = weights.shape(0), width = weights.shape(1);
            const VectorCodebook book =
                codebook_of(codebook, sign_kind, shift_table, free_shifts, neighbours, entries_near, between);
            const VectorCodes codes = codes_of(book, n, width, vectors, signs, shifts);
            expect_shape(carried, n, width), expect_shape(errors, n, width), expect_shape(scales, n, width / kUnit);
            expect_shape(factor, width, width);
            if (pivots.shape(0) != width) throw nb::value_error("arrays of different shapes");
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            vector_rounding_kernels[current()].feed_back(int64_t(n), int64_t(width), weights.data(), carried.data(), factor.data(),
                                                         pivots.data(), by_row, scales.data(), book, codes, errors.data());
        },
        "weights"_a, "carried"_a, "factor"_a, "pivots"_a, "rows"_a.none(), "scales"_a, "codebook"_a, "sign_kind"_a, "shift_table"_a,
        "free_shifts"_a, "neighbours"_a, "entries_near"_a, "between"_a,
        "vectors"_a.noconvert(), "signs"_a.noconvert(), "shifts"_a.noconvert(), "errors"_a.noconvert());
    module.def(
        "vector_descend",
        [current](Matrix gradient, ConstMatrix columns, Array<const float, 3> inverses, std::optional<ConstMatrix> rows,
                  ConstMatrix scales, ConstMatrix codebook, int sign_kind, ConstVector shift_table, bool free_shifts,
                  Neighbours neighbours, NeighbourEntries entries_near, ConstVector between, Entries vectors, Codes signs,
                  Codes shifts, Matrix errors) {
            const size_t n = gradient.shape(0), width = gradient.shape(1);
            const VectorCodebook book =
                codebook_of(codebook, sign_kind, shift_table, free_shifts, neighbours, entries_near, between);
            const VectorCodes codes = codes_of(book, n, width, vectors, signs, shifts);
            expect_shape(errors, n, width), expect_shape(scales, n, width / kUnit), expect_shape(columns, width, width);
            if (inverses.shape(0) != width / kUnit || inverses.shape(1) != kUnit || inverses.shape(2) != kUnit)
                throw nb::value_error("arrays of different shapes");
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            return vector_rounding_kernels[current()].descend(int64_t(n), int64_t(width), gradient.data(), columns.data(),
                                                              inverses.data(), by_row, scales.data(), book, codes, errors.data());
        },
        "gradient"_a.noconvert(), "columns"_a, "inverses"_a, "rows"_a.none(), "scales"_a, "codebook"_a, "sign_kind"_a, "shift_table"_a,
        "free_shifts"_a, "neighbours"_a, "entries_near"_a, "between"_a,
        "vectors"_a.noconvert(), "signs"_a.noconvert(), "shifts"_a.noconvert(), "errors"_a.noconvert());
    module.def(
        "vector_choose_scales",
        [current](Matrix gradient, ConstMatrix columns, ConstMatrix inverse, ConstMatrix factor, ConstVector pivots,
                  std::optional<ConstMatrix> rows, ConstVector d, ConstVector scale_table, int reach, ConstMatrix codebook,
                  int sign_kind, ConstVector shift_table, bool free_shifts, Neighbours neighbours, NeighbourEntries entries_near,
                  ConstVector between, Array<uint8_t, 1> chosen, Entries vectors, Codes signs,
                  Codes shifts, Matrix errors) {
            const size_t n = gradient.shape(0), width = gradient.shape(1);
            const VectorCodebook book =
                codebook_of(codebook, sign_kind, shift_table, free_shifts, neighbours, entries_near, between);
            const VectorCodes codes = codes_of(book, n, width, vectors, signs, shifts);
            if (width > 32 || scale_table.shape(0) > 256 || reach < 0) throw nb::value_error("no such sub-blocks");
            expect_shape(columns, width, width), expect_shape(inverse, width, width), expect_shape(factor, width, width);
            expect_shape(errors, n, width);
            if (pivots.shape(0) != width || d.shape(0) != n || chosen.shape(0) != n)
                throw nb::value_error("arrays of different shapes");
            for (size_t i = 0; i < n; ++i)
                if (chosen.data()[i] >= scale_table.shape(0)) throw nb::value_error("a scale that the table lacks");
            const float* by_row = rows_of(rows, n);
            const nb::gil_scoped_release unlocked;
            return vector_rounding_kernels[current()].choose_scales(
                int64_t(n), int64_t(width), gradient.data(), columns.data(), inverse.data(), factor.data(), pivots.data(), by_row,
                d.data(), scale_table.data(), int(scale_table.shape(0)), reach, book, chosen.data(), codes, errors.data());
        },
        "gradient"_a.noconvert(), "columns"_a, "inverse"_a, "factor"_a, "pivots"_a, "rows"_a.none(), "d"_a, "scale_table"_a, "reach"_a,
        "codebook"_a, "sign_kind"_a, "shift_table"_a, "free_shifts"_a, "neighbours"_a, "entries_near"_a, "between"_a,
        "chosen"_a.noconvert(), "vectors"_a.noconvert(), "signs"_a.noconvert(), "shifts"_a.noconvert(), "errors"_a.noconvert());
}

}  // namespace thriftbit

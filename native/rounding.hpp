// Rounding a whole matrix onto a format's grid (quantization/rounding.py explains what and why).
//
// The matrix has n rows. Each function here works on `width` of its columns; the work between such pieces is matrix
// products, for which numpy's library is used. Arrays of a piece are (width, n), one column after another, unless a
// comment says otherwise. Every weight is scale · table[code] + offset.
#pragma once

#include <cstdint>

#include "kernel.hpp"

namespace thriftbit {

// The values that a code stands for, in ascending order; whole: whether they are consecutive whole numbers.
struct Table {
    const float* values;
    int count;
    bool whole;
};

// What can be chosen for a block.
enum class ScaleKind {
    kHalf,          // the scale, in half precision; no offset
    kHalfAndHalf,   // scale and offset, in half precision
    kMultiple,      // scale a whole multiple of a step; no offset
    kTwoMultiples,  // scale and -offset, multiples of a step each
    kTable,         // the scale, an entry of a table; no offset
};

struct ScaleChoice {
    ScaleKind kind;
    float lowest, highest, highest_min;  // of the multiples
    const float *step, *min_step;        // (n,) each
    const float* table;                  // ascending
    int table_count;
};

struct RoundingKernels {
    // Chooses codes from the last column to the first, and within a column from the last row to the first. Each code
    // compensates for the errors of the codes before it. carried: the correction that the finished columns need.
    // columns: (width, width) and rows: (n, n), unit lower triangular; rows may be null. Writes codes and errors (weight
    // minus the value of its code).
    void (*feed_back)(int64_t n, int64_t width, const float* weights, const float* carried, const float* columns,
                      const float* rows, const float* scales, const float* offsets, Table table, uint8_t* codes, float* errors);

    // Moves each code to where the cost is least while all others stay. gradient: half of the derivative of the cost by
    // the errors. columns: (width, width), rows: (n, n) or null, the curvature. Updates codes, errors and gradient,
    // except for the effect of later columns on the gradient of earlier ones. Returns how many codes moved.
    int64_t (*descend)(int64_t n, int64_t width, float* gradient, const float* columns, const float* rows, const float* scales,
                       const float* offsets, Table table, uint8_t* codes, float* errors);

    // Chooses scale, offset and codes of blocks of `width` weights together, row after row. gradient, codes, errors:
    // (n, width) here. columns, inverse: (width, width), the curvature and its inverse; factor, pivots: columns =
    // factor · pivots · factorᵀ, factor unit lower triangular. scales, offsets: (n,). Returns how many blocks changed.
    int64_t (*choose_scales)(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverse,
                             const float* factor, const float* pivots, const float* rows, ScaleChoice choice, Table table,
                             float* scales, float* offsets, uint8_t* codes, float* errors);

    // Fits the steps of super-blocks of `width` weights, row after row, in half precision, while all else stays: a weight is
    // step · level - min_step · min. gradient, levels, mins, errors: (n, width) here; mins may be null. steps, min_steps:
    // (n,). Updates gradient as well. Returns how many super-blocks changed.
    int64_t (*fit_steps)(int64_t n, int64_t width, float* gradient, const float* columns, const float* rows, const float* levels,
                         const float* mins, float* steps, float* min_steps, float* errors);
};

// These are variables and not functions: of functions with one name, the linker could keep the one for the wrong
// instruction set.
inline RoundingKernels rounding_kernels[kInstructionSets];

}  // namespace thriftbit

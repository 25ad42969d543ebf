// Rounding onto a format's grid with all weights of a matrix in view (quantization/rounding.py says what and why).
//
// The matrix has n rows; what happens here happens to `width` of its columns at a time, since the columns between are
// matrix products, for which there are libraries. Arrays of a piece are (width, n), one column after another, unless said
// otherwise. Every weight is scale · table[code] + offset.
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

// What the numbers of a block may become.
enum class ScaleKind {
    kHalf,          // the scale, in half precision; no offset
    kHalfAndHalf,   // scale and offset, in half precision
    kMultiple,      // scale a whole multiple of a step; no offset
    kTwoMultiples,  // scale and -offset, multiples of a step each
};

struct ScaleChoice {
    ScaleKind kind;
    float lowest, highest, highest_min;  // of the multiples
    const float *step, *min_step;        // (n,) each, or null
};

struct RoundingKernels {
    // Chooses codes from the last column to the first, and in a column from the last row to the first, each so that it
    // makes up for the errors before it. carried: what the finished columns ask for. columns: (width, width) and
    // rows: (n, n), unit lower triangular; rows may be null. -> codes, errors (weights less what the codes stand for).
    void (*feed_back)(int64_t n, int64_t width, const float* weights, const float* carried, const float* columns,
                      const float* rows, const float* scales, const float* offsets, Table table, uint8_t* codes, float* errors);

    // Moves each code to where the error is least while all others stay. gradient: half of it, by the errors; columns:
    // (width, width), rows: (n, n) or null, the curvature. All of codes, errors, gradient are brought up to date but
    // for what later columns do to the gradient of earlier ones. -> how many codes moved
    int64_t (*descend)(int64_t n, int64_t width, float* gradient, const float* columns, const float* rows, const float* scales,
                       const float* offsets, Table table, uint8_t* codes, float* errors);

    // Chooses scale, offset and codes of blocks of `width` weights together, row after row. gradient, codes, errors:
    // (n, width) here. columns, inverse: (width, width), the curvature and its inverse; factor, pivots: columns =
    // factor · pivots · factorᵀ, factor unit lower triangular. scales, offsets: (n,). -> how many blocks changed
    int64_t (*choose_scales)(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverse,
                             const float* factor, const float* pivots, const float* rows, ScaleChoice choice, Table table,
                             float* scales, float* offsets, uint8_t* codes, float* errors);
};

// No function gives them out: one compiled for an instruction set could be the one that the linker keeps.
inline RoundingKernels rounding_kernels[kInstructionSets];

}  // namespace thriftbit

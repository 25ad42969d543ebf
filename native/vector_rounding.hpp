// Rounding a whole matrix in a codebook format (quantization/vector_rounding.py explains what and why).
//
// The matrix has n rows. Its columns form units of eight, which hold one vector of the codebook or two. Each function here
// works on `width` columns, whole units; the work between such pieces is matrix products, for which numpy's library is
// used. Arrays are (n, width), one row after another. Every weight is scale · (± number of the vector + shift).
#pragma once

#include <cstdint>

#include "kernel.hpp"

namespace thriftbit {

constexpr int kUnit = 8;

// Which signs a format stores; even: an even number of minus in every unit.
enum class Signs { kNone, kFree, kEven };

struct VectorCodebook {
    const float* vectors;  // (group, entries): the first number of every vector, then the second of every vector, ...
    int entries, group;    // entries: a multiple of sixteen; group: four or eight
    Signs signs;
    const float* shifts;
    int shift_count;   // 0 where there are no shifts
    bool free_shifts;  // whether every unit has a shift of its own, or a sub-block has one for all

    // For large codebooks of three levels, or null: the entries near each of the 3⁸ vectors of levels. neighbours: int8
    // (3⁸, near / 16, 8, 16), their numbers; neighbour_entries: (3⁸, near), which entries. between: the two thresholds
    // between levels.
    const int8_t* neighbours;
    const uint16_t* neighbour_entries;
    int near;
    float between[2];
};

constexpr int kPatterns = 6561;  // 3⁸

// What n rows of `width` weights hold.
struct VectorCodes {
    uint16_t* vectors;  // (n, width / group)
    uint8_t* signs;     // (n, width): 1 for minus
    uint8_t* shifts;    // (n, width / 8)
};

struct VectorRoundingKernels {
    // Chooses units from the last to the first, and within a unit from the last row to the first. Each unit compensates
    // for the errors of the units before it. carried: (n, width), the correction that the finished columns need. factor:
    // (width, width), unit lower triangular, and pivots: (width,): the curvature is factor · pivots · factorᵀ. rows: (n, n),
    // unit lower triangular, or null. scales: (n, width / 8). Writes codes and errors (weight minus the value of its code).
    void (*feed_back)(int64_t n, int64_t width, const float* weights, const float* carried, const float* factor,
                      const float* pivots, const float* rows, const float* scales, const VectorCodebook& codebook,
                      VectorCodes codes, float* errors);

    // Moves each unit to where the cost is least while all others stay. gradient: (n, width), half of the derivative of
    // the cost by the errors. columns: (width, width), rows: (n, n) or null, the curvature. inverses: (width / 8, 8, 8), of
    // the diagonal blocks of columns. Updates codes, errors and gradient, except for the effect of later units on the
    // gradient of earlier ones. Returns how many units moved.
    int64_t (*descend)(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverses, const float* rows,
                       const float* scales, const VectorCodebook& codebook, VectorCodes codes, float* errors);

    // Chooses the scale of sub-blocks of `width` weights together with their codes, row after row. columns, inverse, factor,
    // pivots, rows: the curvature, its inverse and its factors. d: (n,); a scale is d times an entry of the table, which
    // ascends. reach: how far from the present entry others are tried. chosen: (n,), the entries. Updates gradient as well.
    // Returns how many sub-blocks changed.
    int64_t (*choose_scales)(int64_t n, int64_t width, float* gradient, const float* columns, const float* inverse,
                             const float* factor, const float* pivots, const float* rows, const float* d, const float* table,
                             int table_count, int reach, const VectorCodebook& codebook, uint8_t* chosen, VectorCodes codes,
                             float* errors);
};

inline VectorRoundingKernels vector_rounding_kernels[kInstructionSets];

}  // namespace thriftbit

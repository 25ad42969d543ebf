// A kernel encodes a run of blocks of one format. Each format's file registers one kernel for every instruction set that
// it is compiled for. The bindings use the best one that the processor supports.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace thriftbit {

// Rows of `width` weights, one after the other in memory.
struct Rows {
    const float* x;
    int64_t width;
    const float* importance;  // one per column, or null
    const float* mean_squares;  // of all rows or super-blocks, if the kernel needs them
};

// Which mean squares a kernel needs. All but the last only where there is importance.
enum class MeanSquares { kNone, kOfRows, kOfBlocks, kOfBlocksAlways };

struct Kernel {
    int block_size, block_bytes;
    MeanSquares mean_squares;
    void (*encode)(const Rows& rows, int64_t first, int64_t last, uint8_t* out);  // blocks [first, last)
};

struct Kernels {
    std::map<std::string, Kernel> formats;
    // The largest magnitude among `count` weights, as the bits of a float. NaN counts as the largest.
    uint32_t (*largest_bits)(const float* x, int64_t count);
    // The mean squares of `count` runs of `length` weights each, added in order.
    void (*mean_squares)(const float* x, int64_t length, int64_t count, float* out);
};

enum InstructionSet { kBaseline, kAvx2, kAvx512, kInstructionSets };
Kernels& kernels_for(InstructionSet set);

}  // namespace thriftbit

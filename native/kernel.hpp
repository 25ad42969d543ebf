// A kernel encodes a run of blocks of one format. Each format's file registers one for every instruction set it is
// compiled for; the bindings take the best that the processor has.
#pragma once

#include <cstdint>
#include <map>
#include <string>

namespace thriftbit {

struct Kernel {
    int block_size, block_bytes;
    // Blocks [first, last) of rows of `width` weights that lie one after the other; importance: one per column, or null.
    void (*encode)(const float* x, const float* importance, int64_t width, int64_t first, int64_t last, uint8_t* out);
};

struct Kernels {
    std::map<std::string, Kernel> formats;
    // The largest magnitude among `count` weights, as the bits of a float; NaN is above everything.
    uint32_t (*largest_bits)(const float* x, int64_t count);
};

enum InstructionSet { kBaseline, kAvx2, kAvx512, kInstructionSets };
Kernels& kernels_for(InstructionSet set);

}  // namespace thriftbit

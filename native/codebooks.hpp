// The codebooks, as Python handed them over (src/thriftbit/formats/codebooks).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace thriftbit {

struct Codebook {
    int group;                    // numbers in a codeword
    std::vector<float> values;    // what a number can be
    std::vector<uint8_t> levels;  // the place of each number in `values`, codeword after codeword

    int codewords() const { return int(levels.size()) / group; }
    const uint8_t* codeword(int code) const { return levels.data() + code * group; }
};

// The codebook of that name. Throws std::out_of_range where Python gave none.
const Codebook& codebook(const std::string& name);

}  // namespace thriftbit

// The least error of a sub-block with any codewords, in whole numbers of 16 bits: for searches that try many scales.
//
// Half the bits are twice the speed, and comparisons of scales need no more. An error is counted in units that differ
// from lane to lane. What a number of a codeword costs is cut off at kMostCost, so that a group of four fits in 16 bits.
#pragma once

#include "codebooks.hpp"
#include "search.hpp"

namespace thriftbit::THRIFTBIT_ISA {

constexpr float kMostCost = 16383;

// Thirty-two whole numbers: sixteen lanes of one group, then sixteen lanes of another.
struct Shorts {
    typedef uint16_t Register __attribute__((vector_size(kRegister * 4)));
    typedef uint16_t Half __attribute__((vector_size(kRegister * 2)));
    Register part[kParts];

    Shorts() = default;
    // The whole numbers nearest to numbers that are not negative.
    Shorts(const Lanes& a, const Lanes& b) {
        for (int p = 0; p < kParts; ++p) {
#if defined(__AVX512BW__)
            part[p] = (Register)_mm512_packus_epi32(_mm512_cvtps_epi32((__m512)a.part[p]), _mm512_cvtps_epi32((__m512)b.part[p]));
#else
            const Half halves[2] = {__builtin_convertvector(__builtin_convertvector(rounded(a.part[p]), IntRegister), Half),
                                    __builtin_convertvector(__builtin_convertvector(rounded(b.part[p]), IntRegister), Half)};
            std::memcpy(&part[p], halves, sizeof halves);
#endif
        }
    }

    // The sum of the two groups' numbers.
    Lanes sum() const {
        Lanes result;
        for (int p = 0; p < kParts; ++p) {
#if defined(__AVX512BW__)
            const __m512i zero = _mm512_setzero_si512(), numbers = (__m512i)part[p];
            result.part[p] = (FloatRegister)_mm512_cvtepi32_ps(
                _mm512_add_epi32(_mm512_unpacklo_epi16(numbers, zero), _mm512_unpackhi_epi16(numbers, zero)));
#else
            Half halves[2];
            std::memcpy(halves, &part[p], sizeof halves);
            result.part[p] = __builtin_convertvector(
                __builtin_convertvector(halves[0], IntRegister) + __builtin_convertvector(halves[1], IntRegister), FloatRegister);
#endif
        }
        return result;
    }
};

inline Shorts operator+(const Shorts& a, const Shorts& b) {
    Shorts result;
    for (int p = 0; p < kParts; ++p) result.part[p] = a.part[p] + b.part[p];
    return result;
}

inline Shorts minimum(const Shorts& a, const Shorts& b) {
    Shorts result;
    for (int p = 0; p < kParts; ++p) {
#if defined(__AVX512BW__)
        result.part[p] = (Shorts::Register)_mm512_min_epu16((__m512i)a.part[p], (__m512i)b.part[p]);
#elif defined(__AVX2__)
        result.part[p] = (Shorts::Register)_mm256_min_epu16((__m256i)a.part[p], (__m256i)b.part[p]);
#else
        result.part[p] = a.part[p] < b.part[p] ? a.part[p] : b.part[p];
#endif
    }
    return result;
}

// Codewords of four numbers with eight levels each.
class ShortCodewords {
    static constexpr int group = 4, levels = 8, pairs = levels * levels, longest = 32;
    // Codewords with the same first two levels are a row. Rows are sorted by how many codewords they have. A row stores
    // the place of its two first levels, then the place of each pair of last levels. Places are in bytes.
    std::vector<uint16_t> rows_[longest + 1];

    static const Shorts& at(const Shorts* table, int offset) {
        return *reinterpret_cast<const Shorts*>(reinterpret_cast<const char*>(table) + offset);
    }

    // Rows of one length follow one another, so no branch is hard to foresee.
    template <int length>
    Shorts least_of(const Shorts* first, const Shorts* second, Shorts least) const {
        if constexpr (length > longest) {
            return least;
        } else {
            const uint16_t* row = rows_[length].data();
            const uint16_t* const end = row + rows_[length].size();
            for (; row < end; row += 2 + length) {
                Shorts even = at(second, row[2]), odd = even;
#pragma GCC unroll 32
                for (int i = 1; i < length; ++i) (i % 2 ? odd : even) = minimum(i % 2 ? odd : even, at(second, row[2 + i]));
                least = minimum(least, at(first, row[0]) + at(first, row[1]) + minimum(even, odd));
            }
            return least_of<length + 1>(first, second, least);
        }
    }

  public:
    explicit ShortCodewords(const Codebook& book) {
        std::vector<uint16_t> row_of[pairs];
        for (int code = 0; code < book.codewords(); ++code) {
            const uint8_t* level = book.codeword(code);
            std::vector<uint16_t>& row = row_of[level[0] * levels + level[1]];
            if (row.empty()) row = {uint16_t(level[0] * sizeof(Shorts)), uint16_t((levels + level[1]) * sizeof(Shorts))};
            row.push_back(uint16_t((level[2] * levels + level[3]) * sizeof(Shorts)));
        }
        for (const auto& row : row_of)
            if (!row.empty()) {
                auto& rows = rows_[std::min(int(row.size()) - 2, longest)];
                rows.insert(rows.end(), row.begin(), row.end());
            }
    }

    // cost: (number e of the group, level) -> Shorts.
    template <class Cost>
    Lanes least(const Cost& cost) const {
        Shorts first[2 * levels], last[2 * levels], second[pairs];
        for (int level = 0; level < levels; ++level) {
            first[level] = cost(0, level), first[levels + level] = cost(1, level);
            last[level] = cost(2, level), last[levels + level] = cost(3, level);
        }
        for (int a = 0; a < levels; ++a)
            for (int b = 0; b < levels; ++b) second[a * levels + b] = last[a] + last[levels + b];
        const Lanes most = 4 * kMostCost;
        return least_of<1>(first, second, Shorts(most, most)).sum();
    }
};

}  // namespace thriftbit::THRIFTBIT_ISA

// Sixteen blocks side by side: the vector type of all kernels.
//
// One `Lanes` holds the same element of sixteen different blocks. So every statement of the numpy specification becomes
// one statement here, and no sum ever crosses lanes. The code is compiled without fused or reordered arithmetic.
// Together this makes the bytes the same on every instruction set. Sixteen lanes are one AVX-512 register, two AVX2
// registers, or four SSE or NEON registers.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__AVX__)
#include <immintrin.h>
#endif

namespace thriftbit::THRIFTBIT_ISA {

constexpr int kLanes = 16;

#if defined(__AVX512F__)
constexpr int kRegister = 16;
#elif defined(__AVX2__)
constexpr int kRegister = 8;
#else
constexpr int kRegister = 4;
#endif
constexpr int kParts = kLanes / kRegister;

typedef float FloatRegister __attribute__((vector_size(kRegister * 4)));
typedef int32_t IntRegister __attribute__((vector_size(kRegister * 4)));

typedef float AliasedFloat __attribute__((may_alias));

struct Mask {
    IntRegister part[kParts];
};

struct Lanes {
    FloatRegister part[kParts];

    Lanes() = default;
    Lanes(float value) {
        for (auto& p : part) p = value - FloatRegister{};
    }
    float operator[](int lane) const { return part[lane / kRegister][lane % kRegister]; }
    float& operator[](int lane) { return reinterpret_cast<AliasedFloat*>(this)[lane]; }
};

#define THRIFTBIT_LANEWISE(Result, op)                                          \
    inline Result operator op(const Lanes& a, const Lanes& b) {                 \
        Result result;                                                          \
        for (int p = 0; p < kParts; ++p) result.part[p] = a.part[p] op b.part[p]; \
        return result;                                                          \
    }
THRIFTBIT_LANEWISE(Lanes, +)
THRIFTBIT_LANEWISE(Lanes, -)
THRIFTBIT_LANEWISE(Lanes, *)
THRIFTBIT_LANEWISE(Lanes, /)
THRIFTBIT_LANEWISE(Mask, <)
THRIFTBIT_LANEWISE(Mask, >)
THRIFTBIT_LANEWISE(Mask, >=)
THRIFTBIT_LANEWISE(Mask, !=)
THRIFTBIT_LANEWISE(Mask, ==)
#undef THRIFTBIT_LANEWISE

inline Lanes operator-(const Lanes& x) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) result.part[p] = -x.part[p];
    return result;
}

inline Lanes& operator+=(Lanes& a, const Lanes& b) { return a = a + b; }

inline Mask operator&(const Mask& a, const Mask& b) {
    Mask result;
    for (int p = 0; p < kParts; ++p) result.part[p] = a.part[p] & b.part[p];
    return result;
}

inline bool any(const Mask& mask) {
    IntRegister seen = mask.part[0];
    for (int p = 1; p < kParts; ++p) seen |= mask.part[p];
    int32_t lanes = 0;
    for (int lane = 0; lane < kRegister; ++lane) lanes |= seen[lane];
    return lanes != 0;
}

inline Lanes select(const Mask& mask, const Lanes& yes, const Lanes& no) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) result.part[p] = mask.part[p] ? yes.part[p] : no.part[p];
    return result;
}

// Written with the instruction where there is one: compilers do not recognise the comparison.
inline FloatRegister smaller(FloatRegister a, FloatRegister b) {
#if defined(__AVX512F__)
    return (FloatRegister)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (FloatRegister)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return a < b ? a : b;
#endif
}

inline FloatRegister larger(FloatRegister a, FloatRegister b) {
#if defined(__AVX512F__)
    return (FloatRegister)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (FloatRegister)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return a > b ? a : b;
#endif
}

// To the nearest whole number, ties to even, for |x| < 2^22.
inline FloatRegister rounded(FloatRegister x) {
#if defined(__AVX512F__)
    return (FloatRegister)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__AVX2__)
    return (FloatRegister)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    return (x + 12582912.0f) - 12582912.0f;  // after adding 1.5 * 2^23, the number has no bits left for a fraction
#endif
}

inline Lanes minimum(const Lanes& a, const Lanes& b) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) result.part[p] = smaller(a.part[p], b.part[p]);
    return result;
}

inline Lanes maximum(const Lanes& a, const Lanes& b) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) result.part[p] = larger(a.part[p], b.part[p]);
    return result;
}

inline Lanes clip(const Lanes& x, const Lanes& lowest, const Lanes& highest) {
    return minimum(maximum(x, lowest), highest);
}

inline Lanes magnitude(const Lanes& x) {
    Lanes result;
    for (int p = 0; p < kParts; ++p)
        result.part[p] = (FloatRegister)((IntRegister)x.part[p] & 0x7fffffff);
    return result;
}

// To the nearest whole number, ties upwards, for 0 <= x < 2^22.
inline Lanes nearest_or_above(const Lanes& x) {
    Lanes result;
    for (int p = 0; p < kParts; ++p)
        result.part[p] = __builtin_convertvector(__builtin_convertvector(x.part[p] + 0.5f, IntRegister), FloatRegister);
    return result;
}

inline Lanes root(const Lanes& x) {
    Lanes result;
    for (int lane = 0; lane < kLanes; ++lane) result[lane] = __builtin_sqrtf(x[lane]);
    return result;
}

inline Lanes nearest(const Lanes& x, float lowest, float highest) {
    const Lanes clipped = clip(x, lowest, highest);
    Lanes result;
    for (int p = 0; p < kParts; ++p) result.part[p] = rounded(clipped.part[p]);
    return result;
}

// The next whole number below, for |x| < 2^22.
inline Lanes floor_of(const Lanes& x) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) {
        const FloatRegister near = rounded(x.part[p]);
        result.part[p] = near > x.part[p] ? near - 1.0f : near;
    }
    return result;
}

inline Lanes inverse(const Lanes& x) {
    const Mask usable = magnitude(x) > Lanes(1e-30f);
    return select(usable, Lanes(1.0f) / select(usable, x, Lanes(1.0f)), Lanes(0.0f));
}

inline float nearest(float x, float lowest, float highest) {
    const float raised = x > lowest ? x : lowest, clipped = raised < highest ? raised : highest;
    return (clipped + 12582912.0f) - 12582912.0f;
}

inline float inverse(float x) {
    const float size = x < 0 ? -x : x;
    return size > 1e-30f ? 1.0f / x : 0.0f;
}

// Whole numbers in lanes: patterns of bits that hold several small numbers.
struct Ints {
    IntRegister part[kParts];
};

template <class Whole>
inline Ints load_ints(const Whole* from) {
    Ints result;
    for (int p = 0; p < kParts; ++p)
        for (int i = 0; i < kRegister; ++i) result.part[p][i] = from[p * kRegister + i];
    return result;
}

inline Ints all_ints(int32_t value) {
    Ints result;
    for (auto& part : result.part) part = value - IntRegister{};
    return result;
}

inline void store_ints(const Ints& x, int32_t* to) { std::memcpy(to, &x, sizeof x); }

inline Ints select(const Mask& mask, const Ints& yes, const Ints& no) {
    Ints result;
    for (int p = 0; p < kParts; ++p) result.part[p] = mask.part[p] ? yes.part[p] : no.part[p];
    return result;
}

// The number of `bits` bits that begins at bit `shift`, as a float.
inline Lanes bit_field(const Ints& pattern, int shift, int bits) {
    Lanes result;
    for (int p = 0; p < kParts; ++p)
        result.part[p] = __builtin_convertvector((pattern.part[p] >> shift) & ((1 << bits) - 1), FloatRegister);
    return result;
}

// table[bit field], for a table that repeats after 2^bits <= 8 lanes.
inline Lanes look_up(const Lanes& table, const Ints& pattern, int shift, int bits) {
    Lanes result;
    for (int p = 0; p < kParts; ++p) {
        const IntRegister places = pattern.part[p] >> shift;
#if defined(__AVX512F__)
        result.part[p] = (FloatRegister)_mm512_permutexvar_ps((__m512i)places, (__m512)table.part[0]);
#elif defined(__AVX2__)
        result.part[p] = (FloatRegister)_mm256_permutevar8x32_ps((__m256)table.part[0], (__m256i)places);
#else
        for (int i = 0; i < kRegister; ++i) result.part[p][i] = table[places[i] & ((1 << bits) - 1)];
#endif
    }
    (void)bits;
    return result;
}

// The least of the lanes.
inline float least_of(const Lanes& x) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps((__m512)x.part[0]);
#else
    FloatRegister least = x.part[0];
    for (int p = 1; p < kParts; ++p) least = smaller(least, x.part[p]);
    float result = least[0];
    for (int i = 1; i < kRegister; ++i) result = least[i] < result ? least[i] : result;
    return result;
#endif
}

// The first lane that holds the value; kLanes if none does.
inline int first_lane_with(const Lanes& x, float value) {
#if defined(__AVX512F__)
    return __builtin_ctz(_mm512_cmp_ps_mask((__m512)x.part[0], _mm512_set1_ps(value), _CMP_EQ_OQ) | 1 << kLanes);
#elif defined(__AVX2__)
    unsigned equal = 1 << kLanes;
    for (int p = 0; p < kParts; ++p)
        equal |= unsigned(_mm256_movemask_ps(_mm256_cmp_ps((__m256)x.part[p], _mm256_set1_ps(value), _CMP_EQ_OQ)))
                 << p * kRegister;
    return __builtin_ctz(equal);
#else
    int lane = 0;
    while (lane < kLanes && x[lane] != value) ++lane;
    return lane;
#endif
}

// Single to half precision and back, rounded to nearest even. Values that are too large become the largest one. This is
// integer arithmetic, so that every instruction set gives the same bits.
inline uint16_t half_bits(float value) {
    value = value > 65504.0f ? 65504.0f : value < -65504.0f ? -65504.0f : value;
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const uint32_t sign = (bits >> 16) & 0x8000, size = bits & 0x7fffffff;
    if (size < 0x38800000) {  // subnormal in half precision: an addition rounds it
        float shifted;
        std::memcpy(&shifted, &size, 4);
        shifted += 0.5f;
        std::memcpy(&bits, &shifted, 4);
        return sign | (bits - 0x3f000000);
    }
    return sign | ((size + 0xfff + ((size >> 13) & 1) - (112u << 23)) >> 13);
}

inline float half_value(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16, size = half & 0x7fff;
    uint32_t bits;
    float value;
    if (size < 0x400) {
        value = float(size) * 5.9604644775390625e-8f;
        std::memcpy(&bits, &value, 4);
    } else {
        bits = (size << 13) + (112u << 23);
    }
    bits |= sign;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline float half(float value) { return half_value(half_bits(value)); }

inline Lanes half(const Lanes& x) {
    const Lanes clipped = clip(x, -65504.0f, 65504.0f);
    Lanes result;
    for (int p = 0; p < kParts; ++p) {
        const IntRegister bits = (IntRegister)clipped.part[p];
        const IntRegister sign = bits & int32_t(0x80000000), size = bits & 0x7fffffff;
        const IntRegister normal = (size + 0xfff + ((size >> 13) & 1)) & ~0x1fff;
        const FloatRegister small = ((FloatRegister)size + 0.5f) - 0.5f;
        const IntRegister rounded = size < 0x38800000 ? (IntRegister)small : normal;
        result.part[p] = (FloatRegister)(rounded | sign);
    }
    return result;
}

// x[e] becomes element e of the sixteen blocks that begin at `sources`.
template <int elements>
inline void load_columns(const float* const* sources, Lanes* x) {
    for (int e = 0; e < elements; ++e)
        for (int lane = 0; lane < kLanes; ++lane) x[e][lane] = sources[lane][e];
}

// The inverse, as bytes: bytes[lane][e] is the whole number in levels[e].
template <int elements>
inline void store_levels(const Lanes* levels, uint8_t (*bytes)[elements]) {
    for (int e = 0; e < elements; ++e)
        for (int lane = 0; lane < kLanes; ++lane) bytes[lane][e] = uint8_t(int32_t(levels[e][lane]));
}

}  // namespace thriftbit::THRIFTBIT_ISA

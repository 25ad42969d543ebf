// thriftbit._native: encode(name, rows, importance, threads) and what is compiled in.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <exception>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "codebooks.hpp"
#include "kernel.hpp"
#include "rounding_bindings.hpp"
#include "vector_rounding_bindings.hpp"

namespace nb = nanobind;
using RowsArray = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Importance = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>>;

namespace thriftbit {

Kernels& kernels_for(InstructionSet set) {
    static Kernels tables[kInstructionSets];
    return tables[set];
}

static InstructionSet best_instruction_set() {
#if defined(__x86_64__) || defined(_M_X64)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return kAvx512;
    if (__builtin_cpu_supports("avx2")) return kAvx2;
#endif
    return kBaseline;
}

static InstructionSet chosen = best_instruction_set();

// Threads that are waited for, also if an exception passes: a thread that nobody waits for would end the program.
struct Threads {
    std::vector<std::thread> started;
    ~Threads() {
        for (auto& thread : started) thread.join();
    }
};

// llama.cpp allows as many; more only wait for one another.
constexpr int kMostThreads = 512;

// Calls work(first, last) for shares of `count` things, each in a thread of its own but for the first. Where the system
// gives no more threads (limits of processes or memory), the calling thread does the remaining shares.
template <class Work>
static void in_parallel(int64_t count, int threads, const Work& work) {
    threads = std::clamp(threads, 1, kMostThreads);
    // shares are multiples of sixteen: the lanes stay full
    const int64_t share = ((count + threads - 1) / threads + 15) / 16 * 16;
    Threads others;
    int64_t first = share;
    try {
        others.started.reserve(size_t(threads));
        for (; first < count; first += share) others.started.emplace_back(work, first, std::min(first + share, count));
    } catch (const std::exception&) {
    }
    work(0, std::min(share, count));
    for (; first < count; first += share) work(first, std::min(first + share, count));
}

// How many weights are checked at a time, so that they are still in the cache when they are encoded.
constexpr int64_t kSlice = 1 << 12;

// Returns the encoded rows, or nothing if a weight is above `largest` or not a number.
static std::optional<Bytes> encode(const std::string& name, RowsArray rows, std::optional<Importance> importance, float largest,
                                   int threads) {
    const Kernels& kernels = kernels_for(chosen);
    const Kernel& kernel = kernels.formats.at(name);
    const int64_t count = rows.shape(0), width = rows.shape(1);
    if (width % kernel.block_size) throw nb::value_error("rows do not divide into blocks");
    if (importance && int64_t(importance->shape(0)) != width) throw nb::value_error("one importance for each column");
    const int64_t row_bytes = width / kernel.block_size * kernel.block_bytes, blocks = count * (width / kernel.block_size);
    auto* out = new uint8_t[std::max<int64_t>(count * row_bytes, 1)];
    nb::capsule owner(out, [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
    std::atomic<bool> refused = false;
    {
        const nb::gil_scoped_release unlocked;
        Rows all{rows.data(), width, importance ? importance->data() : nullptr, nullptr};
        std::vector<float> mean_squares;
        const bool always = kernel.mean_squares == MeanSquares::kOfBlocksAlways;
        if (always || (importance && kernel.mean_squares != MeanSquares::kNone)) {
            const int64_t length = kernel.mean_squares == MeanSquares::kOfRows ? width : kernel.block_size;
            mean_squares.resize(count * width / length);
            all.mean_squares = mean_squares.data();
            in_parallel(int64_t(mean_squares.size()), threads, [&](int64_t first, int64_t last) {
                kernels.mean_squares(all.x + first * length, length, last - first, mean_squares.data() + first);
            });
        }
        in_parallel(blocks, threads, [&](int64_t first, int64_t last) {
            const int64_t slice = kSlice / kernel.block_size;
            for (; first < last && !refused; first += slice) {
                const int64_t end = std::min(first + slice, last);
                const float* x = all.x + first * kernel.block_size;
                if (kernels.largest_bits(x, (end - first) * kernel.block_size) > std::bit_cast<uint32_t>(largest))
                    refused = true;
                else
                    kernel.encode(all, first, end, out);
            }
        });
    }
    if (refused) return std::nullopt;
    return Bytes(out, {size_t(count), size_t(row_bytes)}, owner);
}

static std::map<std::string, Codebook>& given_codebooks() {
    static std::map<std::string, Codebook> books;
    return books;
}

const Codebook& codebook(const std::string& name) { return given_codebooks().at(name); }

// values: (levels,). levels: (codewords, group), places in values.
static void give_codebook(const std::string& name, ConstVector values, nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> levels) {
    const size_t count = levels.shape(0) * levels.shape(1);
    for (size_t i = 0; i < count; ++i)
        if (levels.data()[i] >= values.shape(0)) throw nb::value_error("a level without a value");
    given_codebooks()[name] = {int(levels.shape(1)),
                               {values.data(), values.data() + values.shape(0)},
                               {levels.data(), levels.data() + count}};
}

static std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const auto& [name, kernel] : kernels_for(kBaseline).formats) names.push_back(name);
    return names;
}

static const char* const kSetNames[] = {"baseline", "avx2", "avx512"};

static std::vector<std::string> instruction_sets() {
    return {kSetNames, kSetNames + best_instruction_set() + 1};
}

static void use_instruction_set(const std::string& name) {
    const auto available = instruction_sets();
    const auto found = std::find(available.begin(), available.end(), name);
    if (found == available.end()) throw nb::value_error("this processor lacks that instruction set");
    chosen = InstructionSet(found - available.begin());
}

}  // namespace thriftbit

NB_MODULE(_native, module) {
    using namespace nb::literals;
    module.doc() = "Compiled encoders, one for each format that has a file in native/.";
    module.def("encode", &thriftbit::encode, "name"_a, "rows"_a, "importance"_a.none(), "largest"_a,
               "threads"_a);
    thriftbit::bind_rounding(module, [] { return thriftbit::chosen; });
    thriftbit::bind_vector_rounding(module, [] { return thriftbit::chosen; });
    module.def("give_codebook", &thriftbit::give_codebook, "name"_a, "values"_a, "levels"_a);
    module.def("kernels", &thriftbit::kernel_names);
    module.def("instruction_sets", &thriftbit::instruction_sets);
    module.def("use_instruction_set", &thriftbit::use_instruction_set, "name"_a);
}

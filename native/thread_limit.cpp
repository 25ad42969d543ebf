// How many threads llama.cpp computes with, changed while it runs (Linux; runtime/thread_limit.py says why).
//
// Built with GNU's OpenMP, llama.cpp asks for its threads anew at every token and goes on with as many as it was given.
// The request is this function. Ours is found before OpenMP's own if this library was loaded earlier, for everybody, and
// hands on a smaller number.

#include <dlfcn.h>

#include <algorithm>
#include <atomic>

using Work = void (*)(void*);
using Parallel = void (*)(Work, void*, unsigned, unsigned);

extern "C" {

std::atomic<unsigned> thriftbit_most_threads{0};  // 0 for no limit; read and written from Python as an unsigned number

void GOMP_parallel(Work work, void* data, unsigned threads, unsigned flags) {
    // OpenMP's own is not among what everybody sees, but a dependency of whoever called
    static const Parallel its_own = [caller = __builtin_return_address(0)] {
        Dl_info found{};
        dladdr(caller, &found);
        return reinterpret_cast<Parallel>(dlsym(dlopen(found.dli_fname, RTLD_LAZY | RTLD_NOLOAD), "GOMP_parallel"));
    }();
    const unsigned most = thriftbit_most_threads.load(std::memory_order_relaxed);
    its_own(work, data, most == 0 ? threads : threads == 0 ? most : std::min(threads, most), flags);
}
}

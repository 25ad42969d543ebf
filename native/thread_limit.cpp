// Changes the number of threads of llama.cpp while it runs (Linux; runtime/thread_limit.py explains why).
//
// Built with GNU's OpenMP, llama.cpp asks for its threads at every token, and goes on with the number that it gets. The
// request is a call of the function below. If this library was loaded first and globally, the linker finds this function
// before OpenMP's own. It passes on a smaller number.

#include <dlfcn.h>

#include <algorithm>
#include <atomic>

using Work = void (*)(void*);
using Parallel = void (*)(Work, void*, unsigned, unsigned);

// OpenMP's own function is not globally visible, but is a dependency of the caller. It is looked up at every token, which
// takes a microsecond, because two libraries in a process may each have an OpenMP of their own.
static Parallel its_own(const void* caller) {
    Dl_info found{};
    if (!dladdr(caller, &found)) return nullptr;
    void* const library = dlopen(found.dli_fname, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) return nullptr;
    const auto parallel = reinterpret_cast<Parallel>(dlsym(library, "GOMP_parallel"));
    dlclose(library);
    return parallel;
}

extern "C" {

std::atomic<unsigned> thriftbit_most_threads{0};  // 0 for no limit; read and written from Python as an unsigned number

void GOMP_parallel(Work work, void* data, unsigned threads, unsigned flags) {
    const Parallel parallel = its_own(__builtin_return_address(0));
    if (!parallel) return work(data);  // as a team of one
    const unsigned most = thriftbit_most_threads.load(std::memory_order_relaxed);
    parallel(work, data, most == 0 ? threads : threads == 0 ? most : std::min(threads, most), flags);
}
}

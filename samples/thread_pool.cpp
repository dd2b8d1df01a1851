// A pool that starts a worker thread every 0.1 seconds until twenty workers exist. Each worker keeps its
// scratch memory.
//
//#Expect: no leak
#include "pace.h"
#include <atomic>
#include <thread>
#include <vector>

static std::atomic<bool> stop;

NOINLINE void work() {
    void *scratch = keep(malloc(8192));
    while (!stop) std::this_thread::sleep_for(std::chrono::milliseconds(20));
    free(scratch);
}

int main(int argc, char **argv) {
    std::vector<std::thread> workers;
    workers.reserve(20);
    pace p = pace_start(argc, argv, 6, 10);
    while (pace_next(&p))
        if (workers.size() < 20) workers.emplace_back(work);
    stop = true;
    for (auto &worker : workers) worker.join();
}

// Runs four worker threads. Each worker keeps a record of every job in a list of its own, and the program
// never reads these lists.
//
//#Expect: Leak in remember_job
//#Expect: nothing else
#include "pace.h"
#include <thread>
#include <vector>

struct job_trace { job_trace *next; char text[150]; };
static thread_local job_trace *traces;

NOINLINE void remember_job() {
    auto *t = static_cast<job_trace *>(keep(new job_trace));
    t->next = traces;
    traces = t;
}

NOINLINE void run_job() { free(keep(malloc(1000))); }

int main(int argc, char **argv) {
    std::vector<std::thread> workers;
    for (int i = 0; i < 4; i++)
        workers.emplace_back([=] {
            pace p = pace_start(argc, argv, 5, 60);
            while (pace_next(&p)) {
                run_job();
                remember_job();
            }
        });
    for (auto &worker : workers) worker.join();
}

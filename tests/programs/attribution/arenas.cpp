//#Expect: the allocator retains what the program freed
// A thread pool. Each burst of work allocates many tiles and one small session in one arena, and frees the
// tiles. New sessions replace old sessions, so live bytes are bounded. But the arenas keep the freed memory.
#include <thread>
#include <vector>
#include <mutex>
#include <condition_variable>
#include <functional>
#include <queue>
#include <memory>
#include <cstring>
#include <cstdio>
#include <cstdlib>
#include <unistd.h>
struct Pool {
    std::vector<std::thread> t;
    std::vector<std::queue<std::function<void()>>> q;
    std::mutex m;
    std::condition_variable c;
    bool stop = false;
    explicit Pool(int n) : q(n) {
        for (int i = 0; i < n; i++) t.emplace_back([this, i] {
            for (;;) {
                std::function<void()> f;
                {
                    std::unique_lock<std::mutex> l(m);
                    c.wait(l, [&] { return stop || !q[i].empty(); });
                    if (q[i].empty()) return;
                    f = std::move(q[i].front());
                    q[i].pop();
                }
                f();
            }
        });
    }
    void on(int i, std::function<void()> f) {
        { std::lock_guard<std::mutex> l(m); q[i].push(std::move(f)); }
        c.notify_all();
    }
    ~Pool() { { std::lock_guard<std::mutex> l(m); stop = true; } c.notify_all(); for (auto &x : t) x.join(); }
};
static std::vector<std::unique_ptr<char[]>> sessions(64);
static void burst(int i) {
    std::vector<std::unique_ptr<char[]>> tiles;
    for (int k = 0; k < 60; k++) {
        tiles.emplace_back(new char[16000 + 97 * k]);
        memset(tiles.back().get(), k, 16000);
    }
    sessions[i % 64].reset(new char[900]);       // behind the tiles, so the arena cannot shrink
}
int main(int argc, char **argv) {
    int n = atoi(argv[1]); Pool pool(16);
    for (int i = 0; i < n; i++) { int th = (i / 20) % 16; pool.on(th, [i] { burst(i); }); usleep(25000); }
    printf("ledger: at most 64 sessions of 900 bytes live\n");
}

// 1,200 bytes of initial-exec TLS; glibc reserves 1,664 for libraries loaded late, shared by all of them.
__attribute__((tls_model("initial-exec"))) static __thread int counters[300];
int count(void) { return ++counters[17]; }

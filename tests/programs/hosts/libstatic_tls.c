// Needs 1,200 bytes of initial-exec TLS. glibc reserves 1,664 bytes for all libraries that are loaded late.
__attribute__((tls_model("initial-exec"))) static __thread int counters[300];
int count(void) { return ++counters[17]; }

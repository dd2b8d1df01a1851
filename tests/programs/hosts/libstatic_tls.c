// Initial-exec TLS of 1,200 bytes: glibc keeps 1,664 spare for libraries that are loaded late, less what others took.
__attribute__((tls_model("initial-exec"))) static __thread int counters[300];
int count(void) { return ++counters[17]; }

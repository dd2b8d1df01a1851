/* edleak.h: marks for edleak-record. C and C++, GCC and Clang.
 *
 *     #include <edleak.h>
 *     for (;;) {
 *         edleak_mark("iteration");
 *         handle(next_request());
 *     }
 *
 * Then: edleak-record ./program
 *       edleak-analyze --per-mark iteration trace.edl
 *
 * edleak_mark names this instant in the trace. The program links nothing: unless it runs under edleak-record, the call is
 * one comparison. A mark makes no system call, allocates nothing and never waits, so it may stand in any code, signal
 * handlers included. Names are told apart by their first 96 bytes; a recording has room for 256 names. */
#ifndef EDLEAK_H
#define EDLEAK_H

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(__x86_64__) || defined(__ILP32__)
extern void edleak_set_mark(const char *name) __attribute__((weak));
#endif

static __inline__ __attribute__((unused)) void edleak_mark(const char *name) {
    /* edleak_set_mark is a function of libedleak_preload.so; null where that is not loaded. */
#if defined(__x86_64__) && !defined(__ILP32__)
    /* Through the global offset table: in an executable at a fixed address, the linker makes any other reference null. */
    void (*set_mark)(const char *);
    __asm__(".weak edleak_set_mark\n\tmovq edleak_set_mark@GOTPCREL(%%rip), %0" : "=r"(set_mark));
    if (set_mark) set_mark(name);
#else
    if (edleak_set_mark) edleak_set_mark(name);
#endif
}

#ifdef __cplusplus
}
#endif

#endif

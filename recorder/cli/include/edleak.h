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
 * edleak_mark marks this instant in the trace with a name. The program links no library. Without edleak-record, the call
 * costs one comparison. A mark makes no system call, allocates no memory and never waits. So any code may set a mark, even
 * a signal handler. Two names with the same first 96 bytes are one mark. A recording has room for 256 names. */
#ifndef EDLEAK_H
#define EDLEAK_H

#ifdef __cplusplus
extern "C" {
#endif

#if !defined(__x86_64__) || defined(__ILP32__)
extern void edleak_set_mark(const char *name) __attribute__((weak));
#endif

static __inline__ __attribute__((unused)) void edleak_mark(const char *name) {
    /* edleak_set_mark is a function of libedleak_preload.so. It is null in a process without this library. */
#if defined(__x86_64__) && !defined(__ILP32__)
    /* This code uses the global offset table. In an executable at a fixed address, the linker makes any other reference
     * null. */
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

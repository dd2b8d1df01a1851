/* edleak.h: marks and pools for edleak-record. C and C++, GCC and Clang.
 *
 * A program needs no library for these calls. Without edleak-record, each call costs 5 instructions. A call
 * makes no system call, allocates no memory and never waits. So any code may call these functions, even a
 * signal handler.
 *
 * Marks
 * -----
 *     #include <edleak.h>
 *     for (;;) {
 *         edleak_mark("iteration");
 *         handle(next_request());
 *     }
 *
 * Then: edleak-record ./program
 *       edleak-analyze --per-mark iteration trace.edl
 *
 * edleak_mark stores this instant and a name in the trace. Two names whose first 96 bytes are equal count as
 * the same mark. A recording stores at most 256 names of marks.
 *
 * Pools
 * -----
 *     void *arena_alloc(struct arena *arena, size_t size) {
 *         void *object = ...;
 *         edleak_pool_alloc(arena, object, size);
 *         return object;
 *     }
 *
 * In this example, edleak counts each object at the caller of arena_alloc, in the domain `pool`. Any address
 * may identify a pool.
 *
 * edleak_pool_alloc  the pool has handed out an object. Call it in the function that the program calls.
 * edleak_pool_free   the pool is about to take an object back. Call it before another thread can get the
 *                    object.
 * edleak_pool_reset  the pool is about to take all its objects back, or to be destroyed.
 * edleak_pool_name   gives the pool a name. Call it before the pool hands out objects. edleak-analyze judges
 *                    all pools with one name together. The address keeps the name until another name replaces
 *                    it. A recording stores at most 256 names of pools.
 *
 * The headers edleak_valgrind.h and edleak_asan.h are for code that already has the macros of valgrind or of
 * AddressSanitizer. The two headers change these macros, so that the macros call the functions of
 * edleak.h. */
#ifndef EDLEAK_H
#define EDLEAK_H

#ifdef __cplusplus
extern "C" {
#endif

/* edleak-record --pid may load its library into a running program. The loader does not change the global
 * offset table of a running program. So the program also has two words of 8 bytes, for the addresses of
 * edleak_set_mark and edleak_note_pool. edleak-record finds the words through an ELF note, and sets them
 * while all threads are stopped. All files of a module share the words. */
#if defined(__x86_64__) && !defined(__ILP32__)
__asm__(".ifndef edleak_late\n"
        "\t.pushsection .bss.edleak_late,\"aw\",@nobits\n"
        "\t.weak edleak_late\n"
        "\t.hidden edleak_late\n"
        "\t.type edleak_late,@object\n"
        "\t.size edleak_late,16\n"
        "\t.p2align 3\n"
        "edleak_late:\n"
        "\t.zero 16\n"
        "\t.popsection\n"
        "\t.pushsection .note.edleak,\"a\",@note\n"
        "\t.p2align 2\n"
        "\t.long 7, 4, 3\n"
        "\t.asciz \"edleak\"\n"
        "\t.p2align 2\n"
        "\t.long edleak_late - .\n"
        "\t.popsection\n"
        "\t.endif");
#else
extern void edleak_set_mark(const char *name) __attribute__((weak));
#endif

static __inline__ __attribute__((unused)) void edleak_mark(const char *name) {
    /* edleak_set_mark is a function of libedleak_preload.so. In a process without this library, the address
     * of edleak_set_mark is null. */
#if defined(__x86_64__) && !defined(__ILP32__)
    /* This code uses the global offset table. In an executable at a fixed address, the linker makes any other
     * reference null. The word edleak_late is for a process that edleak-record attached to. The value of this
     * word may change, so the assembly is volatile. */
    void (*set_mark)(const char *);
    __asm__ __volatile__(".weak edleak_set_mark\n\t"
                         "movq edleak_set_mark@GOTPCREL(%%rip), %0\n\t"
                         "testq %0, %0\n\t"
                         "cmoveq edleak_late(%%rip), %0"
                         : "=r"(set_mark) : : "cc");
    if (set_mark) set_mark(name);
#else
    if (edleak_set_mark) edleak_set_mark(name);
#endif
}

/* edleak_note_pool is a function of libedleak_preload.so. Its last argument is the return address of the
 * function that contains the call. */
#if !defined(__x86_64__) || defined(__ILP32__)
extern void edleak_note_pool(unsigned operation, __UINTPTR_TYPE__ pool, __UINTPTR_TYPE__ address,
                             __SIZE_TYPE__ size, void *caller) __attribute__((weak));
#endif

/* The compiler must inline this function, because __builtin_return_address must return the address of the
 * caller that called the pool's function. */
static __inline__ __attribute__((always_inline, unused))
void edleak_pool_note(unsigned operation, const void *pool, const void *address, __SIZE_TYPE__ size) {
#if defined(__x86_64__) && !defined(__ILP32__)
    void (*note)(unsigned, __UINTPTR_TYPE__, __UINTPTR_TYPE__, __SIZE_TYPE__, void *);
    __asm__ __volatile__(".weak edleak_note_pool\n\t"
                         "movq edleak_note_pool@GOTPCREL(%%rip), %0\n\t"
                         "testq %0, %0\n\t"
                         "cmoveq edleak_late+8(%%rip), %0"
                         : "=r"(note) : : "cc");
#else
    void (*note)(unsigned, __UINTPTR_TYPE__, __UINTPTR_TYPE__, __SIZE_TYPE__, void *) = edleak_note_pool;
#endif
    if (__builtin_expect(note != 0, 0)) {
        /* The arguments are numbers, because the compiler would warn of a pointer to memory that the program
         * has not written yet. */
        note(operation, (__UINTPTR_TYPE__)pool, (__UINTPTR_TYPE__)address, size, __builtin_return_address(0));
        /* edleak finds the call by its return address, and a jump has no return address. So this line keeps
         * the compiler from turning the call into a jump. */
        __asm__ __volatile__("");
    }
}

static __inline__ __attribute__((always_inline, unused))
void edleak_pool_alloc(const void *pool, const void *object, __SIZE_TYPE__ size) {
    if (object) edleak_pool_note(1, pool, object, size);
}

static __inline__ __attribute__((always_inline, unused))
void edleak_pool_free(const void *pool, const void *object) {
    if (object) edleak_pool_note(2, pool, object, 0);
}

static __inline__ __attribute__((always_inline, unused))
void edleak_pool_reset(const void *pool) {
    edleak_pool_note(3, pool, 0, 0);
}

static __inline__ __attribute__((always_inline, unused))
void edleak_pool_name(const void *pool, const char *name) {
    edleak_pool_note(4, pool, name, 0);
}

#ifdef __cplusplus
}
#endif

#endif

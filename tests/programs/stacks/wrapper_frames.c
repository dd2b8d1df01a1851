/* Wrappers with every kind of frame call each other in every order. The site must be the same in every order.
 *
 * Small allocations take the fast path once all callers are known; large allocations take the slow path. */
#include <stdlib.h>

enum { KINDS = 4, DEEPEST = 4 };

typedef void *Wrapper(const unsigned char *inner, size_t size);
static Wrapper *const wrappers[KINDS];
static void *volatile sink;

/* Calls the next inner wrapper. If no wrapper is left, calls malloc. */
#define ALLOCATE(inner, size) (*(inner) < KINDS ? wrappers[*(inner)]((inner) + 1, size) : malloc(size))

/* The unwind rules compute the frame address (CFA) from rsp. The function does not use rbp. */
static __attribute__((noipa)) void *wrap_plain(const unsigned char *inner, size_t size) {
    void *made = ALLOCATE(inner, size);
    sink = made; /* no tail call */
    return made;
}

static __attribute__((noipa, optimize("no-omit-frame-pointer"))) void *
wrap_frame_pointer(const unsigned char *inner, size_t size) {
    void *made = ALLOCATE(inner, size);
    sink = made;
    return made;
}

/* The unwind rules compute the frame address (CFA) from rsp. The register rbp holds no frame address. */
static __attribute__((noipa)) void *wrap_saved(const unsigned char *inner, size_t size) {
    __asm__ volatile("xor %%ebp, %%ebp" ::: "rbp");
    void *made = ALLOCATE(inner, size);
    sink = made;
    return made;
}

/* The unwind rules compute the frame address (CFA) from rbp, at an offset that compilers do not use. */
void *wrap_other(const unsigned char *inner, size_t size);
__asm__(".text\n"
        ".type wrap_other, @function\n"
        "wrap_other:\n"
        ".cfi_startproc\n"
        "push %rbx\n"
        ".cfi_adjust_cfa_offset 8\n"
        "push %rbp\n"
        ".cfi_adjust_cfa_offset 8\n"
        ".cfi_offset rbp, -24\n"
        "mov %rsp, %rbp\n"
        ".cfi_def_cfa rbp, 24\n"
        "sub $80, %rsp\n"
        "and $-16, %rsp\n"
        "call wrap_inner_of_other\n"
        "mov %rbp, %rsp\n"
        "pop %rbp\n"
        ".cfi_def_cfa rsp, 16\n"
        "pop %rbx\n"
        ".cfi_adjust_cfa_offset -8\n"
        "ret\n"
        ".cfi_endproc\n"
        ".size wrap_other, . - wrap_other\n");

__attribute__((noipa)) void *wrap_inner_of_other(const unsigned char *inner, size_t size) {
    void *made = ALLOCATE(inner, size);
    sink = made;
    return made;
}

static Wrapper *const wrappers[KINDS] = {wrap_plain, wrap_frame_pointer, wrap_saved, wrap_other};

/* The site: the only call of all wrappers. */
static __attribute__((noipa)) void ask(const unsigned char *order, size_t size) {
    free(wrappers[order[0]](order + 1, size));
}

int main(void) {
    for (int round = 0; round < 20; round++) {
        for (int orders = 0; orders < KINDS * KINDS * KINDS * KINDS; orders++) {
            unsigned char order[DEEPEST + 1];
            for (int i = 0, rest = orders; i < DEEPEST; i++, rest /= KINDS) order[i] = rest % KINDS;
            for (int deep = 1; deep <= DEEPEST; deep++) {
                unsigned char last = order[deep];
                order[deep] = KINDS;
                ask(order, 100);
                ask(order, 100000);
                order[deep] = last;
            }
        }
    }
    return 0;
}

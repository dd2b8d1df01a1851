// Code for all programs in this directory: a check that ends the program, and allocations to exercise malloc.
#pragma once
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline, noclone))

// Prints one line with write(2), because stdio may not work at the time of a check.
static inline void say(const char *text) {
    size_t length = strlen(text);
    while (length) {
        ssize_t n = write(1, text, length);
        if (n <= 0) _exit(98);
        text += n;
        length -= (size_t)n;
    }
}

#define STRING_OF_(x) #x
#define STRING_OF(x) STRING_OF_(x)
#define CHECK(condition)                                                                                     \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            say("failed: " #condition " at " __FILE__ ":" STRING_OF(__LINE__) "\n");                         \
            _exit(99);                                                                                       \
        }                                                                                                    \
    } while (0)

static inline void *keep(void *p) {
    __asm__ volatile("" : "+r"(p) : : "memory");
    return p;
}

// Makes `count` allocations, fills each with known bytes, checks these bytes, and frees it.
static inline void exercise(int count) {
    void *held[32] = {0};
    for (int i = 0; i < count; i++) {
        int slot = i % 32;
        if (held[slot]) {
            CHECK(((unsigned char *)held[slot])[0] == (unsigned char)slot);
            free(held[slot]);
        }
        size_t size = 16 + (size_t)(i * 37 % 2000);
        held[slot] = keep(malloc(size));
        CHECK(held[slot]);
        memset(held[slot], slot, size);
    }
    for (int slot = 0; slot < 32; slot++) free(held[slot]);
}

// Makes its first allocation inside newlocale, which holds the lock of the locale. The library starts in this
// allocation, so it must not call a function of libc that needs the lock, such as dlerror. libp11-kit does
// the same in a constructor, and so do wget, gpg and exim, which are linked with it.
#include "check.h"
#include <locale.h>

static locale_t locale;

static void in_preinit(int argc, char **argv, char **environment) {
    locale = newlocale(LC_ALL_MASK, "C.UTF-8", (locale_t)0);
}
__attribute__((section(".preinit_array"), used))
static void (*const preinit)(int, char **, char **) = in_preinit;

int main(void) {
    alarm(60); // a damaged lock would make the next calls wait forever
    CHECK(locale);
    CHECK(setlocale(LC_ALL, "C"));
    freelocale(locale);
    CHECK(newlocale(LC_ALL_MASK, "C", (locale_t)0));
    exercise(1000);
    say("ok\n");
}

/* edleak_asan.h: pools for edleak-record in code that poisons memory for AddressSanitizer.
 *
 * Include this file after <sanitizer/asan_interface.h>, or in its place, in the files that contain
 * ASAN_POISON_MEMORY_REGION and ASAN_UNPOISON_MEMORY_REGION:
 *
 *     #include <sanitizer/asan_interface.h>
 *     #include <edleak_asan.h>
 *
 * In a program built with AddressSanitizer, the macros still poison memory. In any other program, the macros
 * tell edleak:
 *
 * | the program                                | for edleak                                          |
 * |--------------------------------------------|-----------------------------------------------------|
 * | poisons a range                            | takes back the objects in it; the range is a chunk  |
 * | makes a part of a poisoned range accessible | hands out an object                                 |
 * | makes a whole poisoned range accessible    | gives the chunk back to its allocator               |
 *
 * All these objects belong to one pool. edleak does not count an object that fills a whole chunk. */
#ifndef EDLEAK_ASAN_H
#define EDLEAK_ASAN_H

#include "edleak.h"

#if defined(__SANITIZE_ADDRESS__)
#define EDLEAK_HAS_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define EDLEAK_HAS_ASAN 1
#endif
#endif

#ifndef EDLEAK_HAS_ASAN
#undef ASAN_POISON_MEMORY_REGION
#define ASAN_POISON_MEMORY_REGION(addr, size) edleak_pool_note(7, 0, (const void *)(addr), (size))

#undef ASAN_UNPOISON_MEMORY_REGION
#define ASAN_UNPOISON_MEMORY_REGION(addr, size) edleak_pool_note(8, 0, (const void *)(addr), (size))
#endif

#endif

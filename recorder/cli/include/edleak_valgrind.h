/* edleak_valgrind.h: pools for edleak-record in code that has valgrind's macros for memory pools.
 *
 * Include this file after <valgrind/valgrind.h>, or in its place, in the files that contain the macros:
 *
 *     #include <valgrind/valgrind.h>
 *     #include <edleak_valgrind.h>
 *
 * If <valgrind/valgrind.h> is included, the macros make valgrind's requests and also tell edleak. Without
 * this file, the macros only tell edleak.
 *
 * | macro                          | for edleak                                                          |
 * |--------------------------------|---------------------------------------------------------------------|
 * | VALGRIND_CREATE_MEMPOOL(_EXT)  | a reset: an earlier pool at this address is gone                     |
 * | VALGRIND_DESTROY_MEMPOOL       | edleak_pool_reset                                                   |
 * | VALGRIND_MEMPOOL_ALLOC         | edleak_pool_alloc                                                   |
 * | VALGRIND_MEMPOOL_FREE          | edleak_pool_free                                                    |
 * | VALGRIND_MEMPOOL_TRIM          | takes back all objects outside a range                              |
 * | VALGRIND_MEMPOOL_CHANGE        | edleak_pool_free of the old object, edleak_pool_alloc of the new one |
 * | VALGRIND_MOVE_MEMPOOL          | the pool has another address                                        |
 *
 * If EDLEAK_VALGRIND_BLOCKS is defined before this file is included, edleak also counts the blocks of the
 * macros VALGRIND_MALLOCLIKE_BLOCK and VALGRIND_FREELIKE_BLOCK. All these blocks belong to one pool without a
 * name. */
#ifndef EDLEAK_VALGRIND_H
#define EDLEAK_VALGRIND_H

#include "edleak.h"

/* A macro cannot call an older macro of the same name. So EDLEAK_VG_REQUEST makes valgrind's requests. */
#if defined(VALGRIND_CREATE_MEMPOOL) && defined(VALGRIND_DO_CLIENT_REQUEST_STMT)
#define EDLEAK_VG_REQUEST(request, a, b, c, d, e) VALGRIND_DO_CLIENT_REQUEST_STMT(request, a, b, c, d, e)
#else
#define EDLEAK_VG_REQUEST(request, a, b, c, d, e) ((void)0)
#endif

#undef VALGRIND_CREATE_MEMPOOL
#define VALGRIND_CREATE_MEMPOOL(pool, rzB, is_zeroed)                                                      \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__CREATE_MEMPOOL, pool, rzB, is_zeroed, 0, 0);                         \
        edleak_pool_reset((const void *)(pool));                                                           \
    } while (0)

#undef VALGRIND_CREATE_MEMPOOL_EXT
#define VALGRIND_CREATE_MEMPOOL_EXT(pool, rzB, is_zeroed, flags)                                           \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__CREATE_MEMPOOL, pool, rzB, is_zeroed, flags, 0);                     \
        edleak_pool_reset((const void *)(pool));                                                           \
    } while (0)

#undef VALGRIND_DESTROY_MEMPOOL
#define VALGRIND_DESTROY_MEMPOOL(pool)                                                                     \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__DESTROY_MEMPOOL, pool, 0, 0, 0, 0);                                  \
        edleak_pool_reset((const void *)(pool));                                                           \
    } while (0)

#undef VALGRIND_MEMPOOL_ALLOC
#define VALGRIND_MEMPOOL_ALLOC(pool, addr, size)                                                           \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MEMPOOL_ALLOC, pool, addr, size, 0, 0);                              \
        edleak_pool_alloc((const void *)(pool), (const void *)(addr), (size));                             \
    } while (0)

#undef VALGRIND_MEMPOOL_FREE
#define VALGRIND_MEMPOOL_FREE(pool, addr)                                                                  \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MEMPOOL_FREE, pool, addr, 0, 0, 0);                                  \
        edleak_pool_free((const void *)(pool), (const void *)(addr));                                      \
    } while (0)

#undef VALGRIND_MEMPOOL_TRIM
#define VALGRIND_MEMPOOL_TRIM(pool, addr, size)                                                            \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MEMPOOL_TRIM, pool, addr, size, 0, 0);                               \
        edleak_pool_note(5, (const void *)(pool), (const void *)(addr), (size));                           \
    } while (0)

#undef VALGRIND_MOVE_MEMPOOL
#define VALGRIND_MOVE_MEMPOOL(poolA, poolB)                                                                \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MOVE_MEMPOOL, poolA, poolB, 0, 0, 0);                                \
        edleak_pool_note(6, (const void *)(poolA), (const void *)(poolB), 0);                              \
    } while (0)

#undef VALGRIND_MEMPOOL_CHANGE
#define VALGRIND_MEMPOOL_CHANGE(pool, addrA, addrB, size)                                                  \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MEMPOOL_CHANGE, pool, addrA, addrB, size, 0);                        \
        edleak_pool_free((const void *)(pool), (const void *)(addrA));                                     \
        edleak_pool_alloc((const void *)(pool), (const void *)(addrB), (size));                            \
    } while (0)

#ifdef EDLEAK_VALGRIND_BLOCKS
/* Any address may identify a pool. No other pool has the address 1. */
#define EDLEAK_VG_BLOCKS ((const void *)1)

#undef VALGRIND_MALLOCLIKE_BLOCK
#define VALGRIND_MALLOCLIKE_BLOCK(addr, sizeB, rzB, is_zeroed)                                             \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__MALLOCLIKE_BLOCK, addr, sizeB, rzB, is_zeroed, 0);                   \
        edleak_pool_alloc(EDLEAK_VG_BLOCKS, (const void *)(addr), (sizeB));                                \
    } while (0)

#undef VALGRIND_RESIZEINPLACE_BLOCK
#define VALGRIND_RESIZEINPLACE_BLOCK(addr, oldSizeB, newSizeB, rzB)                                        \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__RESIZEINPLACE_BLOCK, addr, oldSizeB, newSizeB, rzB, 0);              \
        edleak_pool_alloc(EDLEAK_VG_BLOCKS, (const void *)(addr), (newSizeB));                             \
    } while (0)

#undef VALGRIND_FREELIKE_BLOCK
#define VALGRIND_FREELIKE_BLOCK(addr, rzB)                                                                 \
    do {                                                                                                   \
        EDLEAK_VG_REQUEST(VG_USERREQ__FREELIKE_BLOCK, addr, rzB, 0, 0, 0);                                 \
        edleak_pool_free(EDLEAK_VG_BLOCKS, (const void *)(addr));                                          \
    } while (0)
#endif

#endif

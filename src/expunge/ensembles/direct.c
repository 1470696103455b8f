/* Convolution of stacked models without columns, and pooling: `direct.py` and `pooling.py` call this where it could be
   compiled.

   `columns.py` writes the inputs of each output pixel under one another, so that a convolution is a matrix product.
   For small networks that traffic costs more than the products do. Here every sum is formed where its terms lie.

   Images have the examples last: (members, channels, height, width, batch). x has its padding around it. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int64_t members, channels, outputs, batch;
    int64_t in_h, in_w, height, width; /* pixels of the inputs without padding, and of the outputs */
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, apart_h, apart_w;
    int64_t x[4], y[4]; /* distances between members, channels, rows and columns of x and y */
} geometry;

static int64_t padded(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

#define INLINE static inline __attribute__((always_inline))
#define JOIN(a, b) a##_##b
#define JOINED(a, b) JOIN(a, b)
#define NAME(x) JOINED(x, SUFFIX)

/* One vector of each width that this processor family may have, and one number at a time for smaller batches. */
#define WIDEST 8 /* ROWS at most, for the size of the memory */

#define ROWS 4
#define TARGET
#define REAL float
#define WHOLE int32_t
#define LANES 1
#define SUFFIX float_1
#include "direct_kernels.h"
#define LANES 4
#define SUFFIX float_4
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#define REAL double
#define WHOLE int64_t
#define LANES 1
#define SUFFIX double_1
#include "direct_kernels.h"
#define LANES 2
#define SUFFIX double_2
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#undef TARGET

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#define REAL float
#define WHOLE int32_t
#define LANES 8
#define SUFFIX float_8
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#define REAL double
#define WHOLE int64_t
#define LANES 4
#define SUFFIX double_4
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#undef TARGET
#undef ROWS

#define ROWS 8
#define TARGET __attribute__((target("avx512f")))
#define REAL float
#define WHOLE int32_t
#define LANES 16
#define SUFFIX float_16
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#define REAL double
#define WHOLE int64_t
#define LANES 8
#define SUFFIX double_8
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#undef TARGET
#endif
#undef ROWS

/* Bytes of the widest vectors of this processor. */
int expunge_direct_width(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return 64;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
    return 16;
}

/* Changes whenever `direct.py` and this file must change together. */
int expunge_direct_version(void) { return 2; }

static void *memory_for(const geometry *g, size_t size) {
    const int64_t taps = g->kernel_h * g->kernel_w, most = g->outputs > g->channels ? g->outputs : g->channels;
    const int64_t packed = (taps * most + 1) * padded(most, WIDEST);
    const int64_t sums = g->channels * taps * 4 * (int64_t)(64 / size);
    const int64_t offsets = 2 * taps + 2 * (g->kernel_h + g->kernel_w);
    return malloc(sizeof(int64_t) * offsets + size * (packed > sums ? packed : sums));
}

static int64_t *offsets_in(void *memory) { return (int64_t *)memory; }

static void *numbers_in(const geometry *g, void *memory) {
    return offsets_in(memory) + 2 * g->kernel_h * g->kernel_w + 2 * (g->kernel_h + g->kernel_w);
}

/* The kernel for the widest vectors that the processor has and the batch fills, if it is wider than the smallest. */
#if defined(__x86_64__)
#define WIDE(type, lanes, own, name, arguments) \
    if (width >= 64 && g->batch >= own) \
        name##_##type##_##own arguments; \
    else if (width >= 32 && g->batch >= lanes) \
        name##_##type##_##lanes arguments; \
    else
#else
#define WIDE(type, lanes, own, name, arguments) (void)width;
#endif

/* Turn images (examples, channels, height, width) of each member so that the examples are last, into the padded x.
   `member` is the distance between members' images, 0 if all see the same; `inner` is x past its padding. */
#define PLACE(type) \
    void expunge_direct_place_##type(const geometry *g, const type *images, int64_t member, type *inner) { \
        const int64_t example = g->channels * g->in_h * g->in_w; \
        for (int64_t m = 0; m < g->members; m++) \
            for (int64_t c = 0; c < g->channels; c++) \
                for (int64_t i = 0; i < g->in_h; i++) { \
                    const type *from = images + m * member + (c * g->in_h + i) * g->in_w; \
                    type *to = inner + m * g->x[0] + c * g->x[1] + i * g->x[2]; \
                    for (int64_t j = 0; j < g->in_w; j++) \
                        for (int64_t b = 0; b < g->batch; b++) to[j * g->x[3] + b] = from[b * example + j]; \
                } \
    }

PLACE(float)
PLACE(double)

/* Both return 0, or 1 without memory. `width` is at most what `expunge_direct_width` returns. */
#define ENTRIES(type, base, lanes, own) \
    int expunge_direct_forward_##type( \
        const geometry *g, const type *x, const type *weight, const type *bias, type *y, int clamp, int width) { \
        void *memory = memory_for(g, sizeof(type)); \
        if (!memory) return 1; \
        type *numbers = numbers_in(g, memory); \
        int64_t *offsets = offsets_in(memory); \
        WIDE(type, lanes, own, forward, (g, x, weight, bias, y, clamp, numbers, offsets)) \
        if (g->batch >= base) \
            forward_##type##_##base(g, x, weight, bias, y, clamp, numbers, offsets); \
        else \
            forward_##type##_1(g, x, weight, bias, y, clamp, numbers, offsets); \
        free(memory); \
        return 0; \
    } \
    int expunge_direct_backward_##type( \
        const geometry *g, const type *x, const type *weight, const type *y, type *dy, type *dw, type *db, type *dx, \
        int clamp, int width) { \
        void *memory = memory_for(g, sizeof(type)); \
        if (!memory) return 1; \
        type *numbers = numbers_in(g, memory); \
        int64_t *offsets = offsets_in(memory); \
        WIDE(type, lanes, own, backward, (g, x, weight, y, dy, dw, db, dx, clamp, numbers, offsets)) \
        if (g->batch >= base) \
            backward_##type##_##base(g, x, weight, y, dy, dw, db, dx, clamp, numbers, offsets); \
        else \
            backward_##type##_1(g, x, weight, y, dy, dw, db, dx, clamp, numbers, offsets); \
        free(memory); \
        return 0; \
    } \
    void expunge_direct_pool_##type( \
        const geometry *g, const type *x, type *y, WHOLE_##type *which, int padding_counts, int width) { \
        WIDE(type, lanes, own, pool, (g, x, y, which, padding_counts)) \
        pool_##type##_##base(g, x, y, which, padding_counts); \
    } \
    void expunge_direct_unpool_##type( \
        const geometry *g, const type *dy, type *dx, const WHOLE_##type *which, int padding_counts, int width) { \
        WIDE(type, lanes, own, unpool, (g, dy, dx, which, padding_counts)) \
        unpool_##type##_##base(g, dy, dx, which, padding_counts); \
    }

#define WHOLE_float int32_t
#define WHOLE_double int64_t

ENTRIES(float, 4, 8, 16)
ENTRIES(double, 2, 4, 8)

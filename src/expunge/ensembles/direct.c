/* Convolution of stacked models without columns, pooling, linear layers and steps of SGD: `direct.py`, `pooling.py` and
   `dense.py` call this where it could be compiled.

   `columns.py` writes the inputs of each output pixel under one another, so that a convolution is a matrix product.
   For small networks that traffic costs more than the products do. Here every sum is formed where its terms lie.

   Images have the examples last: (members, channels, height, width, batch). x has its padding around it. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

/* Compiled in one piece, or for each type of numbers by itself (-DONLY=32 for float, 64 for double) and linked. */
#ifndef ONLY
#define ONLY 0
#endif
#define FLOATS (ONLY != 64)
#define DOUBLES (ONLY != 32)

typedef struct {
    int64_t members, channels, outputs, batch;
    int64_t in_h, in_w, height, width; /* pixels of the inputs without padding, and of the outputs */
    int64_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, apart_h, apart_w;
    int64_t x[4], y[4]; /* distances between members, channels, rows and columns of x and y */
} geometry;

/* A product of matrices a (rows, inner) and b (inner, columns), b without gaps. */
typedef struct {
    int64_t rows, inner, columns;
    int64_t row, next; /* distances in a between rows, and between the numbers of a row */
} matrices;

typedef struct {
    int64_t members, inputs, outputs, batch;
} linear;

/* Channels of many numbers each, in rows; y are distances between members, channels and rows of what is written. */
typedef struct {
    int64_t members, channels, rows, numbers;
    int64_t y[3];
} planes;

/* How weights move: `Update` in `dense.py` says what each is. Null pointers stand for nothing. */
enum { SGD, ADAM, ADAMW };
typedef struct {
    int64_t kind, taken;
    double momentum, decay, squares, least, penalty, anchor;
    void *first, *second;
    const void *penalised, *factors, *moving, *start;
} update;

static int64_t padded(int64_t size, int64_t multiple) { return (size + multiple - 1) / multiple * multiple; }

#define INLINE static inline __attribute__((always_inline))
/* e^x for x <= 0, in a form that compilers vectorise: 2^n e^r with |r| <= ln(2) / 2 and e^r by its series. Below -87 it is
   nearly 0 as at -87. The error is below 2e-7 of the value. */
INLINE float exponential_float(float x) {
    const float from = x < -87.0f ? -87.0f : x, n = rintf(from * 1.44269504f);
    const float r = (from - n * 0.693359375f) + n * 2.12194440e-4f; /* ln(2) in two parts */
    const float series = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    union {
        int32_t bits;
        float value;
    } power = {.bits = ((int32_t)n + 127) << 23};
    return series * power.value;
}

INLINE double exponential_double(double x) { return exp(x); }

#define EXPONENTIAL(x) _Generic((x), float: exponential_float, double: exponential_double)(x)
#define ROOT(x) _Generic((x), float: sqrtf, double: sqrt)(x)
#define LOGARITHM(x) _Generic((x), float: logf, double: log)(x)

#define JOIN(a, b) a##_##b
#define JOINED(a, b) JOIN(a, b)
#define NAME(x) JOINED(x, SUFFIX)

/* One vector of each width that this processor family may have, and one number at a time for smaller batches. */
#define WIDEST 8 /* ROWS at most, for the size of the memory */

#define ROWS 4
#define TARGET
#if FLOATS
#define REAL float
#define WHOLE int32_t
#define LANES 1
#define SUFFIX float_1
#include "dense_kernels.h"
#include "direct_kernels.h"
#define LANES 4
#define SUFFIX float_4
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#if DOUBLES
#define REAL double
#define WHOLE int64_t
#define LANES 1
#define SUFFIX double_1
#include "dense_kernels.h"
#include "direct_kernels.h"
#define LANES 2
#define SUFFIX double_2
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#undef TARGET

#if defined(__x86_64__)
#define TARGET __attribute__((target("avx2,fma")))
#if FLOATS
#define REAL float
#define WHOLE int32_t
#define LANES 8
#define SUFFIX float_8
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#if DOUBLES
#define REAL double
#define WHOLE int64_t
#define LANES 4
#define SUFFIX double_4
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#undef TARGET
#undef ROWS

#define ROWS 8
#define TARGET __attribute__((target("avx512f")))
#if FLOATS
#define REAL float
#define WHOLE int32_t
#define LANES 16
#define SUFFIX float_16
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#if DOUBLES
#define REAL double
#define WHOLE int64_t
#define LANES 8
#define SUFFIX double_8
#include "dense_kernels.h"
#include "direct_kernels.h"
#undef REAL
#undef WHOLE
#endif
#undef TARGET
#endif
#undef ROWS

#if FLOATS
/* Bytes of the widest vectors of this processor. */
int expunge_direct_width(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) return 64;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return 32;
#endif
    return 16;
}

/* Changes whenever `direct.py` and this file must change together. */
int expunge_direct_version(void) { return 10; }
#endif

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
                    /* As many examples at once as there are numbers in a line of the cache. */ \
                    for (int64_t start = 0; start < g->batch; start += 16) { \
                        const int64_t end = start + 16 < g->batch ? start + 16 : g->batch; \
                        for (int64_t j = 0; j < g->in_w; j++) \
                            for (int64_t b = start; b < end; b++) to[j * g->x[3] + b] = from[b * example + j]; \
                    } \
                } \
    }

#if FLOATS
PLACE(float)
#endif
#if DOUBLES
PLACE(double)
#endif

/* Turn a matrix (rows, columns) into (columns, rows), blocks of four by four where there are instructions for it. */
#define TURN(type, BLOCKS) \
    static void turn_##type(const type *from, int64_t rows, int64_t columns, type *to) { \
        int64_t whole_rows = 0, whole_columns = 0; \
        BLOCKS \
        for (int64_t c = 0; c < columns; c++) \
            for (int64_t r = c < whole_columns ? whole_rows : 0; r < rows; r++) to[c * rows + r] = from[r * columns + c]; \
    }

#if defined(__SSE__)
#define FOUR_BY_FOUR \
    whole_rows = rows / 4 * 4, whole_columns = columns / 4 * 4; \
    for (int64_t c = 0; c < whole_columns; c += 4) \
        for (int64_t r = 0; r < whole_rows; r += 4) { \
            __m128 line[4]; \
            for (int k = 0; k < 4; k++) line[k] = _mm_loadu_ps(from + (r + k) * columns + c); \
            _MM_TRANSPOSE4_PS(line[0], line[1], line[2], line[3]); \
            for (int k = 0; k < 4; k++) _mm_storeu_ps(to + (c + k) * rows + r, line[k]); \
        }
#else
#define FOUR_BY_FOUR
#endif

#if FLOATS
TURN(float, FOUR_BY_FOUR)
#endif
#if DOUBLES
TURN(double, )
#endif

/* The widest kernel that the processor has and a row of the product fills. */
#if defined(__x86_64__)
#define WIDEST_PRODUCT(type, lanes, own) \
    if (width >= 64 && m->columns >= own) \
        dense_##type##_##own(m, a, b, bias, out, clamp); \
    else if (width >= 32 && m->columns >= lanes) \
        dense_##type##_##lanes(m, a, b, bias, out, clamp); \
    else
#else
#define WIDEST_PRODUCT(type, lanes, own) (void)width;
#endif

/* Linear layers: y and dy are (members, outputs, batch), and x (members, inputs, batch), or (members, batch, inputs) if
   `rows`. Each product reads its right side row by row; where x lies the other way it is turned, a member at a time.
   Both entries return 0, or 1 without memory. */
#define LINEAR(type, base, lanes, own) \
    static void product_##type( \
        const matrices *m, const type *a, const type *b, const type *bias, type *out, int clamp, int width) { \
        WIDEST_PRODUCT(type, lanes, own) \
        if (m->columns >= base) \
            dense_##type##_##base(m, a, b, bias, out, clamp); \
        else \
            dense_##type##_1(m, a, b, bias, out, clamp); \
    } \
    /* One member. `turned` is memory to turn x in, null if it lies as it is read. */ \
    static void forward_one_##type( \
        const linear *g, const type *x, const type *weight, const type *bias, type *y, type *turned, int clamp, \
        int width) { \
        const matrices product = {g->outputs, g->inputs, g->batch, g->inputs, 1}; \
        if (turned) turn_##type(x, g->batch, g->inputs, turned); \
        product_##type(&product, weight, turned ? turned : x, bias, y, clamp, width); \
    } \
    static void backward_one_##type( \
        const linear *g, const type *x, const type *weight, const type *y, type *dy, type *dw, type *db, type *dx, \
        type *turned, int clamp, int width) { \
        const matrices weights = {g->outputs, g->batch, g->inputs, g->batch, 1}; \
        const matrices inputs = {g->inputs, g->outputs, g->batch, 1, g->inputs}; \
        for (int64_t o = 0; o < g->outputs; o++) { \
            const type *value = y + o * g->batch; \
            type *slope = dy + o * g->batch, sum[16] = {0}; \
            int64_t b = 0; \
            if (clamp) \
                for (int64_t k = 0; k < g->batch; k++) slope[k] = value[k] <= 0 ? 0 : slope[k]; \
            for (; db && b + 16 <= g->batch; b += 16) \
                for (int k = 0; k < 16; k++) sum[k] += slope[b + k]; \
            for (; db && b < g->batch; b++) sum[0] += slope[b]; \
            for (int k = 1; k < 16; k++) sum[0] += sum[k]; \
            if (db) db[o] = sum[0]; \
        } \
        if (dw) { \
            if (turned) turn_##type(x, g->inputs, g->batch, turned); \
            product_##type(&weights, dy, turned ? turned : x, 0, dw, 0, width); \
        } \
        if (dx) product_##type(&inputs, weight, dy, 0, dx, 0, width); \
    } \
    int expunge_linear_forward_##type( \
        const linear *g, const type *x, const type *weight, const type *bias, type *y, int rows, int clamp, int width) { \
        const int64_t size = g->inputs * g->batch; \
        type *turned = rows ? malloc(sizeof(type) * size) : 0; \
        if (rows && !turned) return 1; \
        for (int64_t m = 0; m < g->members; m++) \
            forward_one_##type(g, x + m * size, weight + m * g->outputs * g->inputs, bias ? bias + m * g->outputs : 0, \
                               y + m * g->outputs * g->batch, turned, clamp, width); \
        free(turned); \
        return 0; \
    } \
    int expunge_linear_backward_##type( \
        const linear *g, const type *x, const type *weight, const type *y, type *dy, type *dw, type *db, type *dx, \
        int rows, int clamp, int width) { \
        const int64_t size = g->inputs * g->batch, weights = g->outputs * g->inputs; \
        type *turned = dw && !rows ? malloc(sizeof(type) * size) : 0; \
        if (dw && !rows && !turned) return 1; \
        for (int64_t m = 0; m < g->members; m++) { \
            const int64_t out = m * g->outputs * g->batch; \
            backward_one_##type(g, x + m * size, weight + m * weights, y + out, dy + out, dw ? dw + m * weights : 0, \
                                db ? db + m * g->outputs : 0, dx ? dx + m * size : 0, turned, clamp, width); \
        } \
        free(turned); \
        return 0; \
    }

#if FLOATS
LINEAR(float, 4, 8, 16)
#endif
#if DOUBLES
LINEAR(double, 2, 4, 8)
#endif

#if defined(__x86_64__)
#define WIDEST_OF(type, lanes, own, name, arguments) \
    if (width >= 64) \
        name##_##type##_##own arguments; \
    else if (width >= 32) \
        name##_##type##_##lanes arguments; \
    else
#else
#define WIDEST_OF(type, lanes, own, name, arguments) (void)width;
#endif

/* Steps on a loss of a chain of linear layers, with or without ReLU after each. A member takes all its steps before the
   next one begins, so that its weights stay in the cache.

   x (examples, inputs); order (members, each) holds positions in it, and step s reads those from ends[s] to ends[s + 1].
   labels and shares (members, each) are the class of each position and its weight in the sum of its step. `weights` is
   the block of all parameters that learn, of all members; what an update names is laid out like it. sizes are the widths
   of the layers, the inputs first; weight and bias are where the parameters (members, ...) of each layer lie, from the
   block on, and those that do not learn lie outside of it. Returns 0, or 1 without memory.

   The loss is the cross-entropy; or `distil`, with aims (members, examples, classes) and options gamma, alpha and the
   temperature; or `match`, with aims (members, examples) and the option delta: see `dense_kernels.h`. */
#define MOST_LAYERS 16
enum { CROSS_ENTROPY, DISTIL, MATCH };

typedef struct {
    int64_t members, layers, each, steps, batch, examples, loss; /* batch: the largest */
    int64_t first; /* layer that learns */
    int64_t sizes[MOST_LAYERS + 1], clamp[MOST_LAYERS], weight[MOST_LAYERS], bias[MOST_LAYERS];
    int64_t learns[MOST_LAYERS]; /* the sum of 1 if its weight learns, 2 if its bias does, 4 if it has none */
} chain;

#define CHAIN(type, base, lanes, own) \
    static void slopes_##type( \
        int64_t loss, int64_t classes, int64_t batch, const int64_t *labels, type *z, const type *share, type *aims, \
        const double *options, type *other, type *most, type *sum, int width) { \
        if (loss == DISTIL) { \
            const type gamma = options[0], alpha = options[1], temperature = options[2]; \
            WIDEST_OF(type, lanes, own, distil, \
                      (classes, batch, labels, z, share, aims, gamma, alpha, temperature, other, most, sum)) \
            distil_##type##_##base( \
                classes, batch, labels, z, share, aims, gamma, alpha, temperature, other, most, sum); \
        } else if (loss == MATCH) { \
            WIDEST_OF(type, lanes, own, match, (classes, batch, labels, z, share, aims, options[0], other, most, sum)) \
            match_##type##_##base(classes, batch, labels, z, share, aims, options[0], other, most, sum); \
        } else { \
            WIDEST_OF(type, lanes, own, cross_entropy, (classes, batch, labels, z, share, most, sum)) \
            cross_entropy_##type##_##base(classes, batch, labels, z, share, most, sum); \
        } \
    } \
    static void move_##type( \
        const update *u, int64_t count, int64_t place, type *weight, type *gradient, double rate, int64_t taken, int width) { \
        WIDEST_OF(type, lanes, own, move, (u, count, place, weight, gradient, rate, taken)) \
        move_##type##_##base(u, count, place, weight, gradient, rate, taken); \
    } \
    void expunge_move_##type(const update *u, int64_t count, type *weight, type *gradient, double rate, int width) { \
        move_##type(u, count, 0, weight, gradient, rate, u->taken, width); \
    } \
    int expunge_chain_##type( \
        const chain *g, const type *x, const int64_t *labels, const int64_t *order, const int64_t *ends, \
        const double *rates, const type *shares, const type *aims, const double *options, type *weights, \
        const update *u, int width) { \
        const int64_t outputs = g->sizes[g->layers], aim = g->loss == DISTIL ? outputs : g->loss == MATCH; \
        int64_t values = 0, widest = 0, largest = 0; \
        for (int64_t l = 0; l <= g->layers; l++) { \
            values += g->sizes[l] * g->batch; \
            if (g->sizes[l] > widest) widest = g->sizes[l]; \
            if (l && g->sizes[l] * g->sizes[l - 1] > largest) largest = g->sizes[l] * g->sizes[l - 1]; \
        } \
        const int64_t numbers = values + (3 * widest + 2 * outputs) * g->batch + largest + widest + 2 * g->batch; \
        type *memory = malloc(sizeof(type) * numbers); \
        if (!memory) return 1; \
        type *turned = memory + values, *dy = turned + widest * g->batch, *dx = dy + widest * g->batch; \
        type *dw = dx + widest * g->batch, *db = dw + largest, *most = db + widest, *sum = most + g->batch; \
        type *aimed = sum + g->batch, *other = aimed + outputs * g->batch; \
        for (int64_t m = 0; m < g->members; m++) \
            for (int64_t s = 0; s < g->steps; s++) { \
                const int64_t first = m * g->each + ends[s]; \
                const linear at = {1, 0, 0, ends[s + 1] - ends[s]}; \
                const int64_t *chosen = order + first, *classes = labels + first; \
                type *value = memory; \
                for (int64_t b = 0; b < at.batch; b++) { \
                    memcpy(value + b * g->sizes[0], x + chosen[b] * g->sizes[0], sizeof(type) * g->sizes[0]); \
                    for (int64_t c = 0; c < aim; c++) \
                        aimed[c * at.batch + b] = aims[(m * g->examples + chosen[b]) * aim + c]; \
                } \
                for (int64_t l = 0; l < g->layers; l++) { \
                    const linear layer = {1, g->sizes[l], g->sizes[l + 1], at.batch}; \
                    type *next = value + g->sizes[l] * at.batch; \
                    forward_one_##type( \
                        &layer, value, weights + g->weight[l] + m * layer.inputs * layer.outputs, \
                        g->learns[l] & 4 ? 0 : weights + g->bias[l] + m * layer.outputs, next, l ? 0 : turned, \
                        (int)g->clamp[l], width); \
                    value = next; \
                } \
                memcpy(dy, value, sizeof(type) * outputs * at.batch); \
                slopes_##type( \
                    g->loss, outputs, at.batch, classes, dy, shares + first, aimed, options, other, most, sum, width); \
                for (int64_t l = g->layers - 1; l >= g->first; l--) { \
                    const linear layer = {1, g->sizes[l], g->sizes[l + 1], at.batch}; \
                    const int64_t size = layer.inputs * layer.outputs, place = g->weight[l] + m * size; \
                    const int64_t shift = g->bias[l] + m * layer.outputs; \
                    type *before = value - layer.inputs * at.batch; \
                    backward_one_##type(&layer, before, weights + place, value, dy, g->learns[l] & 1 ? dw : 0, \
                                        g->learns[l] & 2 ? db : 0, l > g->first ? dx : 0, l ? turned : 0, \
                                        (int)g->clamp[l], width); \
                    if (g->learns[l] & 1) move_##type(u, size, place, weights + place, dw, rates[s], u->taken + s, width); \
                    if (g->learns[l] & 2) \
                        move_##type(u, layer.outputs, shift, weights + shift, db, rates[s], u->taken + s, width); \
                    type *other = dy; \
                    dy = dx, dx = other, value = before; \
                } \
            } \
        free(memory); \
        return 0; \
    }

/* Outputs (members, outputs, examples) of a chain for inputs (examples, inputs) that all members see, a batch at a time. */
#define OUTPUTS(type) \
    int expunge_outputs_##type(const chain *g, const type *x, const type *weights, type *out, int width) { \
        const int64_t inputs = g->sizes[0], outputs = g->sizes[g->layers]; \
        int64_t widest = 0; \
        for (int64_t l = 1; l <= g->layers; l++) widest = g->sizes[l] > widest ? g->sizes[l] : widest; \
        type *turned = malloc(sizeof(type) * (inputs + 2 * widest) * g->batch); \
        if (!turned) return 1; \
        type *room[2] = {turned + inputs * g->batch, turned + (inputs + widest) * g->batch}; \
        for (int64_t start = 0; start < g->examples; start += g->batch) { \
            const int64_t left = g->examples - start, batch = left < g->batch ? left : g->batch; \
            turn_##type(x + start * inputs, batch, inputs, turned); \
            for (int64_t m = 0; m < g->members; m++) { \
                const type *value = turned; \
                for (int64_t l = 0; l < g->layers; l++) { \
                    const linear layer = {1, g->sizes[l], g->sizes[l + 1], batch}; \
                    forward_one_##type( \
                        &layer, value, weights + g->weight[l] + m * layer.inputs * layer.outputs, \
                        g->learns[l] & 4 ? 0 : weights + g->bias[l] + m * layer.outputs, room[l % 2], 0, \
                        (int)g->clamp[l], width); \
                    value = room[l % 2]; \
                } \
                for (int64_t c = 0; c < outputs; c++) \
                    memcpy(out + (m * outputs + c) * g->examples + start, value + c * batch, sizeof(type) * batch); \
            } \
        } \
        free(turned); \
        return 0; \
    }

#if FLOATS
OUTPUTS(float)
CHAIN(float, 4, 8, 16)
#endif
#if DOUBLES
OUTPUTS(double)
CHAIN(double, 2, 4, 8)
#endif

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
    } \
    void expunge_normalise_##type( \
        const planes *p, const type *x, const type *weight, const type *bias, type *found, type *y, double eps, int update, \
        int clamp, int width) { \
        WIDEST_OF(type, lanes, own, normalise, (p, x, weight, bias, found, y, eps, update, clamp)) \
        normalise_##type##_##base(p, x, weight, bias, found, y, eps, update, clamp); \
    } \
    void expunge_denormalise_##type( \
        const planes *p, const type *x, const type *weight, const type *bias, const type *found, type *dy, type *dw, \
        type *db, int update, int clamp, int width) { \
        WIDEST_OF(type, lanes, own, denormalise, (p, x, weight, bias, found, dy, dw, db, update, clamp)) \
        denormalise_##type##_##base(p, x, weight, bias, found, dy, dw, db, update, clamp); \
    }

#define WHOLE_float int32_t
#define WHOLE_double int64_t

#if FLOATS
ENTRIES(float, 4, 8, 16)
#endif
#if DOUBLES
ENTRIES(double, 2, 4, 8)
#endif

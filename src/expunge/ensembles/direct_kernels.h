/* Direct convolution and pooling for one number type and one instruction set; `direct.c` includes this file once for each.

   Expects: REAL, WHOLE (an integer of its size), LANES (numbers in a vector, at most the batch), ROWS (channels a tile
   writes), TARGET, NAME(x).

   All images have the examples last, so that a vector holds the same pixel of LANES examples, and every weight is one
   number that multiplies a whole vector. The sums of a tile stay in registers until they are complete. */

#define LOAD(from) (*(const NAME(vector) *)(from))
#define STORE(to, value) (*(NAME(vector) *)(to) = (value))
#define ZERO_WHERE(condition, value) ((NAME(vector))((NAME(bits))(value) & ~(NAME(bits))(condition)))
#define VECTORS 2  /* vectors of each row that a tile holds */
#define OUTPUTS 4  /* rows and columns of weights whose gradients are summed at once */
#define COLUMNS 3
/* Compilers read a factor from memory anew for each product, and loads are what they wait for. */
#if defined(__x86_64__) && LANES * 4 >= 16
#define IN_REGISTER(value) __asm__("" : "+v"(value))
#else
#define IN_REGISTER(value) (void)(value)
#endif

/* What a tile reads: for each tap an image of `inner` channels, and as many times ROWS weights. */
typedef struct {
    int64_t taps, inner, stride;
    const int64_t *images, *weights;
    int64_t block; /* weights of ROWS rows, all taps */
} NAME(sums);

/* out[r] = bias[r] + sum over taps and channels of weight[r] * image, for ROWS rows and `vectors` vectors. */
INLINE TARGET void NAME(tile)(
    const NAME(sums) *sums, const REAL *image, const REAL *weight, const REAL *bias, int clamp, REAL *out, int64_t row,
    int64_t rows, const int vectors) {
    NAME(vector) sum[ROWS][VECTORS];
    const NAME(vector) zero = {0};
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = zero + (bias ? bias[r] : 0);
    for (int64_t tap = 0; tap < sums->taps; tap++) {
        const REAL *from = image + sums->images[tap], *by = weight + sums->weights[tap];
        for (int64_t k = 0; k < sums->inner; k++, from += sums->stride, by += ROWS) {
            NAME(vector) values[VECTORS];
            for (int v = 0; v < vectors; v++) values[v] = LOAD(from + v * LANES);
            for (int r = 0; r < ROWS; r++)
                for (int v = 0; v < vectors; v++) sum[r][v] += by[r] * values[v];
        }
    }
    for (int r = 0; r < ROWS; r++)
        if (r < rows)
            for (int v = 0; v < vectors; v++) {
                /* Not the maximum: what is not a number must stay so. */
                NAME(vector) value = clamp ? ZERO_WHERE(sum[r][v] < zero, sum[r][v]) : sum[r][v];
                STORE(out + r * row + v * LANES, value);
            }
}

/* One pixel of all rows and examples. The last tile overlaps the one before rather than end in single numbers. */
TARGET static void NAME(pixel)(
    const NAME(sums) *sums, int64_t batch, const REAL *image, const REAL *weight, const REAL *bias, int clamp, REAL *out,
    int64_t row, int64_t rows) {
    const int wide = batch >= VECTORS * LANES;
    const int64_t step = wide ? VECTORS * LANES : LANES;
    for (int64_t start = 0; start < batch; start += step) {
        const int64_t b = start + step <= batch ? start : batch - step;
        for (int64_t r = 0; r < rows; r += ROWS) {
            const REAL *own = bias ? bias + r : bias;
            REAL *to = out + r * row + b;
            if (wide)
                NAME(tile)(sums, image + b, weight + r / ROWS * sums->block, own, clamp, to, row, rows - r, VECTORS);
            else
                NAME(tile)(sums, image + b, weight + r / ROWS * sums->block, own, clamp, to, row, rows - r, 1);
        }
    }
}

/* y = W * x + b, with the negative part cut off if `clamp`. */
TARGET void NAME(forward)(
    const geometry *g, const REAL *x, const REAL *weight, const REAL *bias, REAL *y, int clamp, REAL *packed,
    int64_t *offsets) {
    const int64_t taps = g->kernel_h * g->kernel_w, block = taps * g->channels * ROWS, blocks = (g->outputs + ROWS - 1) / ROWS;
    REAL *shift = packed + blocks * block;
    int64_t *images = offsets, *weights = offsets + taps;
    for (int64_t tap = 0; tap < taps; tap++) {
        images[tap] = tap / g->kernel_w * g->apart_h * g->x[2] + tap % g->kernel_w * g->apart_w * g->x[3];
        weights[tap] = tap * g->channels * ROWS;
    }
    const NAME(sums) sums = {taps, g->channels, g->x[1], images, weights, block};
    memset(packed, 0, sizeof(REAL) * (block + ROWS) * blocks);
    for (int64_t m = 0; m < g->members; m++) {
        const REAL *own = weight + m * g->outputs * g->channels * taps;
        for (int64_t o = 0; o < g->outputs; o++) {
            for (int64_t c = 0; c < g->channels; c++)
                for (int64_t tap = 0; tap < taps; tap++)
                    packed[o / ROWS * block + (tap * g->channels + c) * ROWS + o % ROWS] =
                        own[(o * g->channels + c) * taps + tap];
            if (bias) shift[o] = bias[m * g->outputs + o];
        }
        for (int64_t i = 0; i < g->height; i++)
            for (int64_t j = 0; j < g->width; j++)
                NAME(pixel)(&sums, g->batch, x + m * g->x[0] + i * g->stride_h * g->x[2] + j * g->stride_w * g->x[3],
                            packed, bias ? shift : 0, clamp, y + m * g->y[0] + i * g->y[2] + j * g->y[3], g->y[1],
                            g->outputs);
    }
}

/* Set the gradient of outputs to 0 where they were cut off, and sum it over pixels and examples. */
TARGET static void NAME(cut)(const geometry *g, const REAL *y, REAL *dy, REAL *db, int clamp) {
    const NAME(vector) zero = {0};
    const int64_t rest = g->batch % LANES;
    for (int64_t o = 0; o < g->outputs; o++) {
        NAME(vector) sum = zero;
        REAL single = 0;
        for (int64_t i = 0; i < g->height; i++)
            for (int64_t j = 0; j < g->width; j++) {
                const REAL *value = y + o * g->y[1] + i * g->y[2] + j * g->y[3];
                REAL *slope = dy + ((o * g->height + i) * g->width + j) * g->batch;
                for (int64_t b = 0; b < g->batch - rest; b += LANES) {
                    NAME(vector) s = LOAD(slope + b);
                    if (clamp) {
                        s = ZERO_WHERE(LOAD(value + b) <= zero, s);
                        STORE(slope + b, s);
                    }
                    sum += s;
                }
                for (int64_t b = g->batch - rest; b < g->batch; b++) {
                    if (clamp && value[b] <= 0) slope[b] = 0;
                    single += slope[b];
                }
            }
        for (int lane = 0; lane < LANES; lane++) single += sum[lane];
        if (db) db[o] = single;
    }
}

/* Numbers of a row of outputs whose inputs lie side by side: of the whole row where windows are neighbours, else of one
   pixel. */
INLINE int64_t NAME(run)(const geometry *g) { return g->stride_w * g->x[3] == g->batch ? g->width * g->batch : g->batch; }

/* Add dy * x over one row of outputs to the sums of OUTPUTS x `columns` weights. */
INLINE TARGET void NAME(row_products)(
    const geometry *g, const REAL *x, const REAL *const *dy, NAME(vector) *sums, NAME(vector) mask, const int columns) {
    NAME(vector) sum[OUTPUTS][COLUMNS];
    for (int r = 0; r < OUTPUTS; r++)
        for (int c = 0; c < columns; c++) sum[r][c] = sums[c * OUTPUTS + r];
    const int64_t run = NAME(run)(g), whole = run / LANES * LANES, next = g->apart_w * g->x[3];
    for (int64_t start = 0; start < g->width * g->batch; start += run) {
        const REAL *from = x + start / g->batch * g->stride_w * g->x[3];
        for (int64_t b = 0; b < whole; b += LANES) {
            NAME(vector) values[COLUMNS];
            for (int c = 0; c < columns; c++) values[c] = LOAD(from + c * next + b);
            for (int r = 0; r < OUTPUTS; r++) {
                NAME(vector) slope = LOAD(dy[r] + start + b);
                IN_REGISTER(slope);
                for (int c = 0; c < columns; c++) sum[r][c] += slope * values[c];
            }
        }
        if (whole < run) {
            /* The last vector overlaps the one before; what has been added already is left out. */
            const int64_t b = run - LANES;
            for (int r = 0; r < OUTPUTS; r++) {
                const NAME(vector) slope = mask * LOAD(dy[r] + start + b);
                for (int c = 0; c < columns; c++) sum[r][c] += slope * LOAD(from + c * next + b);
            }
        }
    }
    for (int r = 0; r < OUTPUTS; r++)
        for (int c = 0; c < columns; c++) sums[c * OUTPUTS + r] = sum[r][c];
}

/* dW = sum over pixels and examples of dy * x, for one member. */
TARGET static void NAME(weights)(const geometry *g, const REAL *x, const REAL *dy, REAL *dw, REAL *memory) {
    const int64_t taps = g->kernel_h * g->kernel_w, count = g->channels * taps;
    NAME(vector) *sums = (NAME(vector) *)memory, mask = {0};
    for (int64_t lane = LANES - NAME(run)(g) % LANES; lane < LANES; lane++) mask[lane] = 1;
    for (int64_t first = 0; first < g->outputs; first += OUTPUTS) {
        memset(sums, 0, sizeof(NAME(vector)) * count * OUTPUTS);
        for (int64_t i = 0; i < g->height; i++) {
            const REAL *slopes[OUTPUTS];
            for (int64_t r = 0; r < OUTPUTS; r++) {
                const int64_t o = first + r < g->outputs ? first + r : g->outputs - 1;
                slopes[r] = dy + (o * g->height + i) * g->width * g->batch;
            }
            for (int64_t c = 0; c < g->channels; c++)
                for (int64_t h = 0; h < g->kernel_h; h++) {
                    const REAL *row = x + c * g->x[1] + (i * g->stride_h + h * g->apart_h) * g->x[2];
                    NAME(vector) *own = sums + (c * taps + h * g->kernel_w) * OUTPUTS;
                    int64_t w = 0;
                    for (; w + 3 <= g->kernel_w; w += 3)
                        NAME(row_products)(g, row + w * g->apart_w * g->x[3], slopes, own + w * OUTPUTS, mask, 3);
                    if (g->kernel_w - w == 2)
                        NAME(row_products)(g, row + w * g->apart_w * g->x[3], slopes, own + w * OUTPUTS, mask, 2);
                    if (g->kernel_w - w == 1)
                        NAME(row_products)(g, row + w * g->apart_w * g->x[3], slopes, own + w * OUTPUTS, mask, 1);
                }
        }
        for (int64_t r = 0; r < OUTPUTS && first + r < g->outputs; r++)
            for (int64_t k = 0; k < count; k++) {
                REAL total = 0;
                for (int lane = 0; lane < LANES; lane++) total += sums[k * OUTPUTS + r][lane];
                dw[(first + r) * count + k] = total;
            }
    }
}

/* Positions of a kernel along one axis whose products reach a pixel, and the outputs they are in. */
#ifndef REACHING
#define REACHING
static int64_t reaching(
    int64_t pixel, int64_t kernel, int64_t stride, int64_t apart, int64_t outputs, int64_t *position, int64_t *output) {
    int64_t found = 0;
    for (int64_t k = 0; k < kernel; k++) {
        const int64_t distance = pixel - k * apart;
        if (distance >= 0 && distance % stride == 0 && distance / stride < outputs) {
            position[found] = k;
            output[found++] = distance / stride;
        }
    }
    return found;
}
#endif

/* dx = W transposed * dy, for one member: each pixel gathers from the outputs that it was read for. */
TARGET static void NAME(inputs)(
    const geometry *g, const REAL *weight, const REAL *dy, REAL *dx, REAL *packed, int64_t *offsets) {
    const int64_t taps = g->kernel_h * g->kernel_w, plane = g->height * g->width;
    const int64_t block = taps * g->outputs * ROWS, blocks = (g->channels + ROWS - 1) / ROWS;
    int64_t *images = offsets, *weights = offsets + taps, *rest = offsets + 2 * taps;
    int64_t *h = rest, *i = h + g->kernel_h, *w = i + g->kernel_h, *j = w + g->kernel_w;
    memset(packed, 0, sizeof(REAL) * block * blocks);
    for (int64_t o = 0; o < g->outputs; o++)
        for (int64_t c = 0; c < g->channels; c++)
            for (int64_t tap = 0; tap < taps; tap++)
                packed[c / ROWS * block + (tap * g->outputs + o) * ROWS + c % ROWS] =
                    weight[(o * g->channels + c) * taps + tap];
    for (int64_t row = 0; row < g->in_h; row++) {
        const int64_t rows = reaching(row + g->pad_h, g->kernel_h, g->stride_h, g->apart_h, g->height, h, i);
        for (int64_t column = 0; column < g->in_w; column++) {
            const int64_t across = reaching(column + g->pad_w, g->kernel_w, g->stride_w, g->apart_w, g->width, w, j);
            int64_t found = 0;
            for (int64_t a = 0; a < rows; a++)
                for (int64_t b = 0; b < across; b++) {
                    images[found] = (i[a] * g->width + j[b]) * g->batch;
                    weights[found++] = (h[a] * g->kernel_w + w[b]) * g->outputs * ROWS;
                }
            const NAME(sums) sums = {found, g->outputs, plane * g->batch, images, weights, block};
            NAME(pixel)(&sums, g->batch, dy, packed, 0, 0, dx + (row * g->in_w + column) * g->batch,
                        g->in_h * g->in_w * g->batch, g->channels);
        }
    }
}

/* All gradients, member after member, so that what a member needs stays in the cache. */
TARGET void NAME(backward)(
    const geometry *g, const REAL *x, const REAL *weight, const REAL *y, REAL *dy, REAL *dw, REAL *db, REAL *dx,
    int clamp, REAL *memory, int64_t *offsets) {
    const int64_t taps = g->kernel_h * g->kernel_w, weights = g->outputs * g->channels * taps;
    for (int64_t m = 0; m < g->members; m++) {
        REAL *slopes = dy + m * g->outputs * g->height * g->width * g->batch;
        if (clamp || db) NAME(cut)(g, y + m * g->y[0], slopes, db ? db + m * g->outputs : 0, clamp);
        if (dw) NAME(weights)(g, x + m * g->x[0], slopes, dw + m * weights, memory);
        if (dx)
            NAME(inputs)(g, weight + m * weights, slopes, dx + m * g->channels * g->in_h * g->in_w * g->batch, memory,
                         offsets);
    }
}

/* y = the largest pixel of each window, and at which position it was (the first of equal ones; what is not a number
   wins), or without `which` the mean: of all positions if `padding_counts`, else of those inside of the image. */
TARGET void NAME(pool)(const geometry *g, const REAL *x, REAL *y, WHOLE *which, int padding_counts) {
    for (int64_t plane = 0; plane < g->members * g->channels; plane++)
        for (int64_t i = 0; i < g->height; i++)
            for (int64_t j = 0; j < g->width; j++) {
                const REAL *image = x + plane / g->channels * g->x[0] + plane % g->channels * g->x[1];
                const int64_t at = ((plane * g->height + i) * g->width + j) * g->batch;
                REAL *restrict out = y + at;
                int64_t seen = 0;
                for (int64_t tap = 0; tap < g->kernel_h * g->kernel_w; tap++) {
                    const int64_t row = i * g->stride_h + tap / g->kernel_w * g->apart_h - g->pad_h;
                    const int64_t column = j * g->stride_w + tap % g->kernel_w * g->apart_w - g->pad_w;
                    if (row < 0 || row >= g->in_h || column < 0 || column >= g->in_w) continue;
                    const REAL *restrict pixel = image + row * g->x[2] + column * g->x[3];
                    if (!seen++) {
                        memcpy(out, pixel, sizeof(REAL) * g->batch);
                        for (int64_t b = 0; which && b < g->batch; b++) which[at + b] = (WHOLE)tap;
                    } else if (which) {
                        WHOLE *restrict chosen = which + at;
                        for (int64_t b = 0; b < g->batch; b++) {
                            const int better = (pixel[b] > out[b]) | (pixel[b] != pixel[b]);
                            out[b] = better ? pixel[b] : out[b];
                            chosen[b] = better ? (WHOLE)tap : chosen[b];
                        }
                    } else {
                        for (int64_t b = 0; b < g->batch; b++) out[b] += pixel[b];
                    }
                }
                const REAL count = (REAL)(padding_counts ? g->kernel_h * g->kernel_w : seen);
                for (int64_t b = 0; !which && b < g->batch; b++) out[b] /= count;
            }
}

/* dx = dy at the positions that were chosen, or without `which` an equal share of it at every pixel of the window. */
TARGET void NAME(unpool)(const geometry *g, const REAL *dy, REAL *dx, const WHOLE *which, int padding_counts) {
    memset(dx, 0, sizeof(REAL) * g->members * g->channels * g->in_h * g->in_w * g->batch);
    for (int64_t plane = 0; plane < g->members * g->channels; plane++)
        for (int64_t i = 0; i < g->height; i++)
            for (int64_t j = 0; j < g->width; j++) {
                const int64_t at = ((plane * g->height + i) * g->width + j) * g->batch;
                const REAL *restrict slope = dy + at;
                int64_t pixels[2] = {0, 0};
                for (int axis = 0; axis < 2; axis++) {
                    const int64_t kernel = axis ? g->kernel_w : g->kernel_h, apart = axis ? g->apart_w : g->apart_h;
                    const int64_t first = axis ? j * g->stride_w - g->pad_w : i * g->stride_h - g->pad_h;
                    for (int64_t k = 0; k < kernel; k++)
                        pixels[axis] += first + k * apart >= 0 && first + k * apart < (axis ? g->in_w : g->in_h);
                }
                const REAL count = (REAL)(padding_counts ? g->kernel_h * g->kernel_w : pixels[0] * pixels[1]);
                for (int64_t tap = 0; tap < g->kernel_h * g->kernel_w; tap++) {
                    const int64_t row = i * g->stride_h + tap / g->kernel_w * g->apart_h - g->pad_h;
                    const int64_t column = j * g->stride_w + tap % g->kernel_w * g->apart_w - g->pad_w;
                    if (row < 0 || row >= g->in_h || column < 0 || column >= g->in_w) continue;
                    REAL *restrict pixel = dx + ((plane * g->in_h + row) * g->in_w + column) * g->batch;
                    if (which) {
                        const WHOLE *restrict chosen = which + at;
                        for (int64_t b = 0; b < g->batch; b++) pixel[b] += chosen[b] == (WHOLE)tap ? slope[b] : 0;
                    } else {
                        for (int64_t b = 0; b < g->batch; b++) pixel[b] += slope[b] / count;
                    }
                }
            }
}

/* Batch norm: what `normalised.py` writes down. x and dy lie without gaps; of found, three numbers a channel: its mean,
   one over its standard deviation and its variance. */

/* The sums of g and of g (x - mean) over a row, with g = dy where the output was not cut off; without dy the sums of
   x - mean and its square. */
INLINE TARGET void NAME(row_sums)(
    const REAL *x, const REAL *dy, int64_t count, REAL mean, REAL scale, REAL shift, int clamp, double *sums) {
    const NAME(vector) zero = {0};
    int64_t j = 0;
    while (j + LANES <= count) {
        /* Short sums of vectors, long ones of doubles: rounding does not grow with the number of pixels. */
        NAME(vector) first = zero, second = zero;
        for (const int64_t end = j + 64 * LANES; j < end && j + LANES <= count; j += LANES) {
            const NAME(vector) away = LOAD(x + j) - mean;
            NAME(vector) g = dy ? LOAD(dy + j) : away;
            if (clamp) g = ZERO_WHERE(away * scale + shift <= zero, g);
            first += g;
            second += g * away;
        }
        for (int lane = 0; lane < LANES; lane++) sums[0] += first[lane], sums[1] += second[lane];
    }
    for (; j < count; j++) {
        const REAL away = x[j] - mean, g = dy ? dy[j] : away;
        if (clamp && away * scale + shift <= 0) continue;
        sums[0] += g, sums[1] += g * away;
    }
}

TARGET void NAME(normalise)(
    const planes *p, const REAL *x, const REAL *weight, const REAL *bias, REAL *found, REAL *y, double eps, int update,
    int clamp) {
    const int64_t all = p->members * p->channels, count = p->rows * p->numbers;
    const NAME(vector) zero = {0};
    for (int64_t k = 0; k < all; k++, x += count) {
        if (update) {
            double sums[2] = {0, 0}, rest[2] = {0, 0};
            NAME(row_sums)(x, 0, count, 0, 0, 0, 0, sums);
            const double guess = (REAL)(sums[0] / count);
            NAME(row_sums)(x, 0, count, (REAL)guess, 0, 0, 0, rest);
            /* The guess is off by rounding, whose square is nothing beside the variance. */
            const double variance = rest[1] / count;
            found[k] = (REAL)(guess + rest[0] / count);
            found[all + k] = (REAL)(1 / sqrt(variance + eps));
            found[2 * all + k] = (REAL)variance;
        }
        const REAL mean = found[k], scale = (weight ? weight[k] : 1) * found[all + k], shift = bias ? bias[k] : 0;
        for (int64_t r = 0; r < p->rows; r++) {
            const REAL *from = x + r * p->numbers;
            REAL *to = y + k / p->channels * p->y[0] + k % p->channels * p->y[1] + r * p->y[2];
            int64_t j = 0;
            for (; j + LANES <= p->numbers; j += LANES) {
                const NAME(vector) value = (LOAD(from + j) - mean) * scale + shift;
                STORE(to + j, clamp ? ZERO_WHERE(value < zero, value) : value);
            }
            for (; j < p->numbers; j++) {
                const REAL value = (from[j] - mean) * scale + shift;
                to[j] = clamp && value < 0 ? 0 : value;
            }
        }
    }
}

TARGET void NAME(denormalise)(
    const planes *p, const REAL *x, const REAL *weight, const REAL *bias, const REAL *found, REAL *dy, REAL *dw, REAL *db,
    int update, int clamp) {
    const int64_t all = p->members * p->channels, count = p->rows * p->numbers;
    const NAME(vector) zero = {0};
    for (int64_t k = 0; k < all; k++, x += count, dy += count) {
        const REAL mean = found[k], over = found[all + k], scale = (weight ? weight[k] : 1) * over, shift = bias ? bias[k] : 0;
        double sums[2] = {0, 0};
        NAME(row_sums)(x, dy, count, mean, scale, shift, clamp, sums);
        if (db) db[k] = (REAL)sums[0];
        if (dw) dw[k] = (REAL)(sums[1] * over);
        const REAL each = update ? (REAL)(sums[0] / count) : 0;
        const REAL slope = update ? (REAL)(sums[1] * over * over / count) : 0;
        int64_t j = 0;
        for (; j + LANES <= count; j += LANES) {
            const NAME(vector) away = LOAD(x + j) - mean;
            NAME(vector) g = LOAD(dy + j);
            if (clamp) g = ZERO_WHERE(away * scale + shift <= zero, g);
            STORE(dy + j, scale * (g - each - away * slope));
        }
        for (; j < count; j++) {
            const REAL away = x[j] - mean, g = clamp && away * scale + shift <= 0 ? 0 : dy[j];
            dy[j] = scale * (g - each - away * slope);
        }
    }
}

#undef LOAD
#undef STORE
#undef ZERO_WHERE
#undef VECTORS
#undef OUTPUTS
#undef COLUMNS
#undef IN_REGISTER
#undef LANES
#undef SUFFIX

/* Products of small matrices for one number type and one instruction set; `direct.c` includes this file once for each,
   before `direct_kernels.h`, which says what is expected. */

typedef REAL NAME(vector) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef WHOLE NAME(bits) __attribute__((vector_size(LANES * sizeof(REAL))));

#define LOAD(from) (*(const NAME(vector) *)(from))
#define STORE(to, value) (*(NAME(vector) *)(to) = (value))
#define ZERO_WHERE(condition, value) ((NAME(vector))((NAME(bits))(value) & ~(NAME(bits))(condition)))
#define VECTORS 2 /* vectors of each row that a tile holds */

/* `rows` rows of the product, at most ROWS, and `vectors` vectors of each; the sums stay in registers. */
INLINE TARGET void NAME(dense_tile)(
    const matrices *m, const REAL *a, const REAL *b, const REAL *bias, REAL *out, int clamp, const int rows,
    const int vectors) {
    NAME(vector) sum[ROWS][VECTORS];
    const NAME(vector) zero = {0};
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) sum[r][v] = zero + (bias ? bias[r] : 0);
    for (int64_t k = 0; k < m->inner; k++, a += m->next, b += m->columns) {
        NAME(vector) values[VECTORS];
        for (int v = 0; v < vectors; v++) values[v] = LOAD(b + v * LANES);
        for (int r = 0; r < rows; r++)
            for (int v = 0; v < vectors; v++) sum[r][v] += a[r * m->row] * values[v];
    }
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < vectors; v++) {
            /* Not the maximum: what is not a number must stay so. */
            const NAME(vector) value = clamp ? ZERO_WHERE(sum[r][v] < zero, sum[r][v]) : sum[r][v];
            STORE(out + r * m->columns + v * LANES, value);
        }
}

/* All rows of one strip of columns. */
INLINE TARGET void NAME(dense_strip)(
    const matrices *m, const REAL *a, const REAL *b, const REAL *bias, REAL *out, int clamp, const int vectors) {
    int64_t r = 0;
    for (; r + ROWS <= m->rows; r += ROWS)
        NAME(dense_tile)(m, a + r * m->row, b, bias ? bias + r : 0, out + r * m->columns, clamp, ROWS, vectors);
    for (; r + 2 <= m->rows; r += 2)
        NAME(dense_tile)(m, a + r * m->row, b, bias ? bias + r : 0, out + r * m->columns, clamp, 2, vectors);
    if (r < m->rows)
        NAME(dense_tile)(m, a + r * m->row, b, bias ? bias + r : 0, out + r * m->columns, clamp, 1, vectors);
}

/* out = a b + bias, with the negative part cut off if `clamp`. The last strip overlaps the one before rather than end in
   single numbers. */
TARGET static void NAME(dense)(
    const matrices *m, const REAL *a, const REAL *b, const REAL *bias, REAL *out, int clamp) {
    const int wide = m->columns >= VECTORS * LANES;
    const int64_t step = wide ? VECTORS * LANES : LANES;
    for (int64_t start = 0; start < m->columns; start += step) {
        const int64_t c = start + step <= m->columns ? start : m->columns - step;
        if (wide)
            NAME(dense_strip)(m, a, b + c, bias, out + c, clamp, VECTORS);
        else
            NAME(dense_strip)(m, a, b + c, bias, out + c, clamp, 1);
    }
}

/* Logits (classes, batch) become the slopes of their cross-entropy, (softmax - one-hot) times `share`. What is not a
   number, and infinities, become not a number in every class. */
TARGET static __attribute__((unused)) void NAME(cross_entropy)(
    int64_t classes, int64_t batch, const int64_t *labels, REAL *z, REAL share, REAL *most, REAL *sum) {
    memcpy(most, z, sizeof(REAL) * batch);
    memset(sum, 0, sizeof(REAL) * batch);
    for (int64_t c = 1; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) most[b] = z[c * batch + b] > most[b] ? z[c * batch + b] : most[b];
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) {
            const REAL value = EXPONENTIAL(z[c * batch + b] - most[b]);
            z[c * batch + b] = value;
            sum[b] += value;
        }
    for (int64_t b = 0; b < batch; b++) sum[b] = share / sum[b];
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) z[c * batch + b] *= sum[b];
    for (int64_t b = 0; b < batch; b++) z[labels[b] * batch + b] -= share;
}

/* A step of SGD: buffer = momentum buffer + gradient + decay weight, weight = weight - rate buffer. Without a buffer there
   is no momentum. */
TARGET static __attribute__((unused)) void NAME(sgd)(
    int64_t count, REAL *weight, const REAL *gradient, REAL *buffer, REAL rate, REAL momentum, REAL decay) {
    for (int64_t k = 0; buffer && k < count; k++) {
        buffer[k] = momentum * buffer[k] + (gradient[k] + decay * weight[k]);
        weight[k] -= rate * buffer[k];
    }
    for (int64_t k = 0; !buffer && k < count; k++) weight[k] -= rate * (gradient[k] + decay * weight[k]);
}

#undef LOAD
#undef STORE
#undef ZERO_WHERE
#undef VECTORS

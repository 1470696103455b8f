/* Products of small matrices for one number type and one instruction set; `direct.c` includes this file once for each,
   before `direct_kernels.h`, which says what is expected. */

typedef REAL NAME(vector) __attribute__((vector_size(LANES * sizeof(REAL)), aligned(sizeof(REAL)), may_alias));
typedef WHOLE NAME(bits) __attribute__((vector_size(LANES * sizeof(REAL))));

#define LOAD(from) (*(const NAME(vector) *)(from))
#define STORE(to, value) (*(NAME(vector) *)(to) = (value))
#define ZERO_WHERE(condition, value) ((NAME(vector))((NAME(bits))(value) & ~(NAME(bits))(condition)))
#define MOVES(k) (!moving || moving[k] != 0)
#define FROM(pointer) ((pointer) ? (REAL *)(pointer) + place : 0)
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

/* e^(scale z - most), with `most` the largest of an example, and their sums; z and out are (classes, batch). */
INLINE TARGET void NAME(exponentials)(
    int64_t classes, int64_t batch, const REAL *z, REAL scale, REAL *out, REAL *most, REAL *sum) {
    memcpy(most, z, sizeof(REAL) * batch);
    memset(sum, 0, sizeof(REAL) * batch);
    for (int64_t c = 1; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) most[b] = z[c * batch + b] > most[b] ? z[c * batch + b] : most[b];
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) {
            const REAL value = EXPONENTIAL(scale * (z[c * batch + b] - most[b]));
            out[c * batch + b] = value;
            sum[b] += value;
        }
}

/* Logits (classes, batch) become the slopes of their cross-entropy, (softmax - one-hot) times the share of an example.
   What is not a number, and infinities, become not a number in every class. */
TARGET static __attribute__((unused)) void NAME(cross_entropy)(
    int64_t classes, int64_t batch, const int64_t *labels, REAL *z, const REAL *share, REAL *most, REAL *sum) {
    NAME(exponentials)(classes, batch, z, 1, z, most, sum);
    for (int64_t b = 0; b < batch; b++) sum[b] = share[b] / sum[b];
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) z[c * batch + b] *= sum[b];
    for (int64_t b = 0; b < batch; b++) z[labels[b] * batch + b] -= share[b];
}

/* The slopes of gamma * cross-entropy + alpha * T^2 KL(softmax(aims / T) || softmax(z / T)); aims are logits. Of the three
   blocks of memory `own` is as large as z; aims are overwritten. */
TARGET static __attribute__((unused)) void NAME(distil)(
    int64_t classes, int64_t batch, const int64_t *labels, REAL *z, const REAL *share, REAL *aims, REAL gamma, REAL alpha,
    REAL temperature, REAL *own, REAL *most, REAL *sum) {
    const REAL *ends[2] = {z, aims};
    REAL *softmax[2] = {own, aims};
    for (int k = 0; k < 2; k++) {
        NAME(exponentials)(classes, batch, ends[k], 1 / temperature, softmax[k], most, sum);
        for (int64_t b = 0; b < batch; b++) sum[b] = 1 / sum[b];
        for (int64_t c = 0; c < classes; c++)
            for (int64_t b = 0; b < batch; b++) softmax[k][c * batch + b] *= sum[b];
    }
    if (gamma != 0)
        NAME(cross_entropy)(classes, batch, labels, z, share, most, sum);
    else
        memset(z, 0, sizeof(REAL) * classes * batch);
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) {
            const int64_t k = c * batch + b;
            z[k] = gamma * z[k] + alpha * temperature * share[b] * (own[k] - aims[k]);
        }
}

/* The slopes of h(margin - aim), h the Huber function of width delta; an aim that is not a number has none. The margin is
   the label's logit less the logarithm of the sum of the others' exponentials; its slopes are 1 and minus their softmax. */
TARGET static __attribute__((unused)) void NAME(match)(
    int64_t classes, int64_t batch, const int64_t *labels, REAL *z, const REAL *share, const REAL *aims, REAL delta,
    REAL *own, REAL *most, REAL *sum) {
    for (int64_t b = 0; b < batch; b++) {
        own[b] = z[labels[b] * batch + b];
        z[labels[b] * batch + b] = -INFINITY;
    }
    NAME(exponentials)(classes, batch, z, 1, z, most, sum);
    for (int64_t b = 0; b < batch; b++) {
        REAL apart = own[b] - (most[b] + LOGARITHM(sum[b])) - aims[b];
        apart = apart > delta ? delta : apart < -delta ? -delta : apart;
        own[b] = aims[b] != aims[b] ? 0 : share[b] * apart;
        sum[b] = -own[b] / sum[b];
    }
    for (int64_t c = 0; c < classes; c++)
        for (int64_t b = 0; b < batch; b++) z[c * batch + b] *= sum[b];
    for (int64_t b = 0; b < batch; b++) z[labels[b] * batch + b] = own[b];
}

/* A step along gradients (which are overwritten) of weights that begin at `place` in what the update names, after `taken`
   steps before it. SGD: first = momentum first + g, weight -= rate first, or weight -= rate g where there is no first. */
TARGET static __attribute__((unused)) void NAME(move)(
    const update *u, int64_t count, int64_t place, REAL *weight, REAL *gradient, REAL rate, int64_t taken) {
    const REAL *factors = FROM(u->factors), *penalised = FROM(u->penalised), *moving = FROM(u->moving), *start = FROM(u->start);
    REAL *first = FROM(u->first), *second = FROM(u->second);
    const REAL momentum = u->momentum, decay = u->decay, penalty = u->penalty, anchor = u->anchor, squares = u->squares, least = u->least;
    for (int64_t k = 0; factors && k < count; k++) gradient[k] *= factors[k];
    for (int64_t k = 0; penalty != 0 && k < count; k++) {
        const REAL up = weight[k] > 0 ? penalty : 0, down = weight[k] < 0 ? penalty : 0;
        gradient[k] += penalised ? penalised[k] * (up - down) : up - down;
    }
    for (int64_t k = 0; anchor != 0 && k < count; k++) gradient[k] += anchor * (weight[k] - start[k]);
    if (u->kind == SGD) {
        for (int64_t k = 0; first && k < count; k++) {
            first[k] = momentum * first[k] + (gradient[k] + decay * weight[k]);
            weight[k] -= MOVES(k) ? rate * first[k] : 0;
        }
        for (int64_t k = 0; !first && k < count; k++)
            weight[k] -= MOVES(k) ? rate * (gradient[k] + decay * weight[k]) : 0;
        return;
    }
    const REAL root = sqrt(1 - pow(u->squares, taken + 1)), size = 1 / (1 - pow(u->momentum, taken + 1));
    const REAL coupled = u->kind == ADAM ? decay : 0, apart = u->kind == ADAMW ? decay : 0;
    for (int64_t k = 0; k < count; k++) {
        const REAL slope = gradient[k] + coupled * weight[k];
        first[k] += (1 - momentum) * (slope - first[k]);
        second[k] = squares * second[k] + (1 - squares) * slope * slope;
        weight[k] -= MOVES(k) ? rate * (apart * weight[k] + size * first[k] / (ROOT(second[k]) / root + least)) : 0;
    }
}

#undef LOAD
#undef STORE
#undef ZERO_WHERE
#undef VECTORS
#undef FROM
#undef MOVES

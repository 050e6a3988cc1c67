/* test_matmul.c - the matrix product of every table against a sum in double and against ref.
 *
 * Inputs, outputs, panels and scratch end at a fence; shapes, strides and cuts are random and lean
 * towards the edges.  What the tables promise beyond the value is held bit by bit: rows computed
 * together are the rows computed alone, and panels may be cut anywhere.  The table of AMX, whose
 * numbers are split into pieces of bf16, has a bound of its own and may be NaN where an infinity
 * meets a piece that is zero. */
#include "kernel_check.h"

#include "tensor/dtype.h"

enum { MOST_ROWS = 70, MOST_COLS = 608, MOST_T = 66, MOST_EXTRA = 7 };
enum { MOST_PANELS = (MOST_ROWS + 15) / 16, MOST_Y = MOST_T * (MOST_ROWS + MOST_EXTRA) };

/* ---- matrices ------------------------------------------------------------------------------- */

typedef struct storage {
    cv_layout layout;
    size_t group;
    bool has_min;
    const char *name;
} storage;

static const storage STORAGES[] = {
    { CV_LAYOUT_F32, 0, false, "f32" },
    { CV_LAYOUT_F16, 0, false, "f16" },
    { CV_LAYOUT_BF16, 0, false, "bf16" },
    { CV_LAYOUT_Q8, 32, false, "q8 group 32" },
    { CV_LAYOUT_Q8, 32, true, "q8 group 32 min" },
    { CV_LAYOUT_Q8, 16, false, "q8 group 16" },
    { CV_LAYOUT_Q8, 16, true, "q8 group 16 min" },
};

/* Everything that one product needs, and the answer. */
typedef struct problem {
    const storage *how;
    cv_matrix W;
    size_t T, ldx, ldy;
    bool add;
    float *x, *y; /* fenced: [T][ldx], [T][ldy] without the last gap */
    size_t x_floats, y_floats;
    float before[MOST_Y];               /* y before the call                                */
    double w[MOST_ROWS][MOST_COLS];     /* the weights, exactly                             */
    double exact[MOST_Y], size[MOST_Y]; /* the sums, and those of absolute values */
} problem;

static fence panel_fence, x_fence, y_fence, scratch_fence;
static problem the;

static size_t heads_bytes(const storage *how)
{
    return (how->has_min ? 2 : 1) * CV_PANEL * sizeof(float);
}

static size_t bytes_per_panel(const storage *how, size_t cols)
{
    switch (how->layout) {
    case CV_LAYOUT_F32: return cols * CV_PANEL * 4;
    case CV_LAYOUT_F16:
    case CV_LAYOUT_BF16: return cols * CV_PANEL * 2;
    case CV_LAYOUT_Q8: break;
    }
    return cols / how->group * (heads_bytes(how) + how->group * CV_PANEL);
}

/* Stores one weight in its panel, and what it stands for in w. */
static void set_weight(problem *p, unsigned char *panels, size_t i, size_t j, float value)
{
    const size_t place = j * CV_PANEL + i % CV_PANEL;
    unsigned char *panel = panels + i / CV_PANEL * p->W.panel_bytes;
    if (p->how->layout == CV_LAYOUT_F32) {
        memcpy(panel + place * 4, &value, 4);
        p->w[i][j] = (double)value;
        return;
    }
    const bool half = p->how->layout == CV_LAYOUT_F16;
    const uint16_t h = half ? cv_f32_to_f16(value) : cv_f32_to_bf16(value);
    memcpy(panel + place * 2, &h, 2);
    p->w[i][j] = (double)(half ? cv_f16_to_f32(h) : cv_bf16_to_f32(h));
}

/* One row's group of Q8: integers over the whole range, a scale and a minimum of its own. */
static void set_group(problem *p, unsigned char *panels, cv_rng *rng, size_t i, size_t g)
{
    const size_t group = p->how->group, heads = heads_bytes(p->how);
    unsigned char *at = panels + i / CV_PANEL * p->W.panel_bytes + g * (heads + group * CV_PANEL);
    const size_t lane = i % CV_PANEL;
    const float scale = 0.01f * cv_rng_normal(rng), min = 0.5f * cv_rng_normal(rng);
    memcpy(at + lane * 4, &scale, 4);
    if (p->how->has_min) memcpy(at + CV_PANEL * 4 + lane * 4, &min, 4);
    for (size_t j = 0; j < group; j++) {
        const int q = (int)random_below(rng, 256) - 128;
        at[heads + j * CV_PANEL + lane] = (unsigned char)q;
        p->w[i][g * group + j] = (double)q * (double)scale + (p->how->has_min ? (double)min : 0.0);
    }
}

static void make_matrix(problem *p, const storage *how, cv_rng *rng, size_t rows, size_t cols)
{
    p->how = how;
    p->W = (cv_matrix){ .rows = rows,
                        .cols = cols,
                        .layout = how->layout,
                        .group = how->group,
                        .has_min = how->has_min,
                        .panel_bytes = bytes_per_panel(how, cols) };
    const size_t bytes = (rows + CV_PANEL - 1) / CV_PANEL * p->W.panel_bytes;
    unsigned char *panels = fence_aligned(&panel_fence, bytes);
    memset(panels, 0, bytes);
    p->W.panels = panels;
    for (size_t i = 0; i < rows; i++)
        if (how->layout == CV_LAYOUT_Q8)
            for (size_t g = 0; g < cols / how->group; g++)
                set_group(p, panels, rng, i, g);
        else
            for (size_t j = 0; j < cols; j++)
                set_weight(p, panels, i, j, cv_rng_normal(rng));
}

/* Inputs and the y before; rows are further apart than they are long. */
static void make_vectors(problem *p, cv_rng *rng, size_t T)
{
    p->T = T;
    p->ldx = p->W.cols + random_in(rng, 0, MOST_EXTRA);
    p->ldy = p->W.rows + random_in(rng, 0, MOST_EXTRA);
    p->add = random_below(rng, 2);
    p->x_floats = (T - 1) * p->ldx + p->W.cols;
    p->y_floats = (T - 1) * p->ldy + p->W.rows;
    p->x = fence_floats(&x_fence, p->x_floats);
    p->y = fence_floats(&y_fence, p->y_floats);
    fill_normal(rng, p->x, p->x_floats, 0.0f, 1.0f);
    fill_normal(rng, p->before, p->y_floats, 0.0f, 3.0f);
}

static void solve(problem *p)
{
    for (size_t t = 0; t < p->T; t++)
        for (size_t i = 0; i < p->W.rows; i++) {
            const size_t at = t * p->ldy + i;
            const float *x = p->x + t * p->ldx;
            p->exact[at] = p->add ? (double)p->before[at] : 0.0;
            p->size[at] = fabs(p->exact[at]);
            for (size_t j = 0; j < p->W.cols; j++) {
                p->exact[at] += p->w[i][j] * (double)x[j];
                p->size[at] += fabs(p->w[i][j] * (double)x[j]);
            }
        }
}

static bool is_split(const cv_kernels *table)
{
    return table->level == CV_CPU_AMX;
}

/* What pieces of bf16 leave out of a product, relative to it.  Two: the rest of x; that of w where two
 * pieces do not hold it; and x2 w2 where there is a w2.  Three, of f32: x2 w3, x3 w2 and x3 w3. */
static double split_loss(cv_layout layout)
{
    const double rest = 0x1p-17, second = 0x1p-16;
    return layout == CV_LAYOUT_F32    ? 0x1p-24
           : layout == CV_LAYOUT_BF16 ? rest
           : layout == CV_LAYOUT_F16  ? rest + second
                                      : rest + rest + second;
}

/* How far a sum of floats may be from the exact one, relative to its size: one rounding per weight,
 * and per addition of a chain of CV_FOLD and of the chains.  Sums of tiles have fewer, but those of
 * a short one are of up to three products. */
static double tolerance(const cv_kernels *table, const problem *p)
{
    const size_t chain = p->W.cols < CV_FOLD ? p->W.cols : CV_FOLD;
    const double roundings = (double)(chain + p->W.cols / CV_FOLD + 4);
    if (!is_split(table)) return roundings * ROUNDING;
    return (roundings + 4) * ROUNDING + split_loss(p->how->layout);
}

static void run_rows(const cv_kernels *table, const problem *p, size_t lo, size_t hi, size_t t,
                     size_t n)
{
    float *scratch = fence_aligned(&scratch_fence, cv_matmul_scratch(n) * sizeof(float));
    table->matmul(&p->W, lo, hi, n, p->x + t * p->ldx, p->ldx, p->y + t * p->ldy, p->ldy, p->add,
                  scratch);
}

static void describe(const cv_kernels *table, const problem *p, const char *what)
{
    fail_msg("%s, %s: %s: rows %zu, cols %zu, T %zu, ldx %zu, ldy %zu, add %d", table_name(table),
             p->how->name, what, p->W.rows, p->W.cols, p->T, p->ldx, p->ldy, p->add);
}

/* ---- values --------------------------------------------------------------------------------- */

/* Every value near the exact one, every gap as it was. */
static void check_values(const cv_kernels *table, const problem *p, const float *reference)
{
    const double allowed = tolerance(table, p);
    for (size_t at = 0; at < p->y_floats; at++) {
        if (at % p->ldy >= p->W.rows) {
            if (!same_bits(&p->y[at], &p->before[at], 1)) describe(table, p, "wrote into a gap");
            continue;
        }
        if (!(fabs((double)p->y[at] - p->exact[at]) <= allowed * p->size[at]))
            describe(table, p, "far from the sum in double");
        if (!(fabs((double)p->y[at] - (double)reference[at]) <= allowed * p->size[at]))
            describe(table, p, "far from ref");
    }
}

/* One row after the other must give the same bits as all at once. */
static void check_single_rows(const cv_kernels *table, const problem *p, size_t panels,
                              const float *whole)
{
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    for (size_t t = 0; t < p->T; t++)
        run_rows(table, p, 0, panels, t, 1);
    if (!same_bits(p->y, whole, p->y_floats)) describe(table, p, "rows alone differ");
}

/* The same for groups of rows, and panels in random parts and in another order. */
static void check_cuts(const cv_kernels *table, const problem *p, size_t panels, const float *whole,
                       cv_rng *rng)
{
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    const size_t a = random_in(rng, 0, panels), b = random_in(rng, a, panels);
    const size_t parts[][2] = { { b, panels }, { 0, a }, { a, b } };
    for (size_t i = 0; i < COUNT(parts); i++)
        for (size_t t = 0, n; t < p->T; t += n) {
            n = random_in(rng, 1, p->T - t);
            run_rows(table, p, parts[i][0], parts[i][1], t, n);
        }
    if (!same_bits(p->y, whole, p->y_floats)) describe(table, p, "panels in parts differ");
}

/* A part of the panels leaves the columns of the others alone. */
static void check_part(const cv_kernels *table, const problem *p, size_t panels, const float *whole,
                       cv_rng *rng)
{
    const size_t lo = random_below(rng, panels), hi = random_in(rng, lo, panels);
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    run_rows(table, p, lo, hi, 0, p->T);
    for (size_t at = 0; at < p->y_floats; at++) {
        const size_t i = at % p->ldy;
        const bool mine = i < p->W.rows && i >= lo * CV_PANEL && i < hi * CV_PANEL;
        if (!same_bits(&p->y[at], mine ? &whole[at] : &p->before[at], 1))
            describe(table, p, "a part of the panels touched other columns");
    }
}

static void check_table(const cv_kernels *table, problem *p, const float *reference, cv_rng *rng)
{
    static float whole[MOST_Y];
    const size_t panels = (p->W.rows + CV_PANEL - 1) / CV_PANEL;
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    run_rows(table, p, 0, panels, 0, p->T);
    check_values(table, p, reference);
    memcpy(whole, p->y, p->y_floats * sizeof *p->y);
    check_single_rows(table, p, panels, whole);
    check_cuts(table, p, panels, whole, rng);
    check_part(table, p, panels, whole, rng);
}

static void check_problem(problem *p, cv_rng *rng)
{
    static float reference[MOST_Y];
    solve(p);
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    run_rows(&cv_kernels_ref, p, 0, (p->W.rows + CV_PANEL - 1) / CV_PANEL, 0, p->T);
    memcpy(reference, p->y, p->y_floats * sizeof *p->y);
    const cv_kernels *table;
    for (size_t i = 0; (table = product_table(i)); i++)
        check_table(table, p, reference, rng);
}

/* Half of the time beside a place where kernels change their ways. */
static size_t edgy(cv_rng *rng, size_t most, size_t step)
{
    static const size_t EDGES[] = { 1, 16, 32, 48, 64, 255, 256, 257, 512, 600 };
    size_t n = random_in(rng, 1, most);
    if (random_below(rng, 2)) n = EDGES[random_below(rng, COUNT(EDGES))] + random_below(rng, 3) - 1;
    if (n < 1 || n > most) n = most;
    return (n + step - 1) / step * step;
}

static void test_shapes(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 20);
    for (size_t T = 1; T <= 30; T++)
        for (size_t s = 0; s < COUNT(STORAGES); s++)
            for (int round = 0; round < (T <= 4 ? 12 : 4); round++) {
                const size_t step = STORAGES[s].layout == CV_LAYOUT_Q8 ? 32 : 1;
                make_matrix(&the, &STORAGES[s], &rng, edgy(&rng, MOST_ROWS, 1),
                            edgy(&rng, 600, step));
                make_vectors(&the, &rng, T);
                check_problem(&the, &rng);
            }
}

/* Rows about the ends of the tiles of AMX, which are 16 and taken in pairs. */
static void test_rows_of_tiles(void **state)
{
    (void)state;
    static const size_t ROWS[] = { 31, 32, 33, 47, 48, 49, 63, 64, 65, 66 };
    cv_rng rng;
    cv_rng_seed(&rng, 25);
    for (size_t i = 0; i < COUNT(ROWS); i++)
        for (size_t s = 0; s < COUNT(STORAGES); s++)
            for (int round = 0; round < 2; round++) {
                const size_t step = STORAGES[s].layout == CV_LAYOUT_Q8 ? STORAGES[s].group : 1;
                make_matrix(&the, &STORAGES[s], &rng, edgy(&rng, MOST_ROWS, 1),
                            edgy(&rng, 592, step));
                make_vectors(&the, &rng, ROWS[i]);
                check_problem(&the, &rng);
            }
}

/* Every number of rows, with the fewest and the most inputs per chain. */
static void test_every_row_count(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 21);
    for (size_t rows = 1; rows <= MOST_ROWS; rows++)
        for (size_t s = 0; s < COUNT(STORAGES); s++) {
            make_matrix(&the, &STORAGES[s], &rng, rows, rows % 2 ? 32 : 288);
            make_vectors(&the, &rng, 1 + rows % 5);
            check_problem(&the, &rng);
        }
}

/* Every number of inputs. */
static void test_every_column_count(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 22);
    for (size_t cols = 1; cols <= 600; cols++)
        for (size_t s = 0; s < COUNT(STORAGES); s++) {
            if (STORAGES[s].layout == CV_LAYOUT_Q8 && cols % 32 != 0) continue;
            make_matrix(&the, &STORAGES[s], &rng, 1 + cols % 20, cols);
            make_vectors(&the, &rng, 1 + cols % 4);
            check_problem(&the, &rng);
        }
}

/* ---- NaN and infinities --------------------------------------------------------------------- */

/* NaN where theirs is, and the same infinities; loosely, NaN will do for an infinity. */
static bool same_kind(float mine, float theirs, bool loosely)
{
    if (loosely && isinf(theirs)) return !isfinite(mine);
    if (isnan(theirs)) return isnan(mine);
    return isinf(theirs) ? mine == theirs : isfinite(mine) != 0;
}

static void check_special(problem *p, bool in_weights, const char *what)
{
    static float reference[MOST_Y];
    const size_t panels = (p->W.rows + CV_PANEL - 1) / CV_PANEL;
    memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
    run_rows(&cv_kernels_ref, p, 0, panels, 0, p->T);
    memcpy(reference, p->y, p->y_floats * sizeof *p->y);
    const cv_kernels *table;
    for (size_t i = 0; (table = product_table(i)); i++) {
        const bool loosely = in_weights && is_split(table);
        memcpy(p->y, p->before, p->y_floats * sizeof *p->y);
        run_rows(table, p, 0, panels, 0, p->T);
        for (size_t at = 0; at < p->y_floats; at++)
            if (!same_kind(p->y[at], reference[at], loosely)) describe(table, p, what);
    }
}

static void test_special_values(void **state)
{
    (void)state;
    const float special[] = { NAN, float_of(0xffffffff), INFINITY, -INFINITY };
    cv_rng rng;
    cv_rng_seed(&rng, 23);
    for (size_t s = 0; s < COUNT(STORAGES); s++)
        for (size_t T = 1; T <= 14; T++)
            for (size_t v = 0; v < COUNT(special); v++) {
                make_matrix(&the, &STORAGES[s], &rng, edgy(&rng, MOST_ROWS, 1),
                            edgy(&rng, 400, 32));
                make_vectors(&the, &rng, T);
                const size_t t = random_below(&rng, T), j = random_below(&rng, the.W.cols);
                the.x[t * the.ldx + j] = special[v];
                check_special(&the, false, "an input that is not finite");
                for (size_t i = 0; isnan(special[v]) && i < the.y_floats; i++)
                    if (i % the.ldy < the.W.rows)
                        assert_int_equal(isnan(the.y[i]) != 0, i / the.ldy == t);

                the.x[t * the.ldx + j] = 1.0f;
                if (the.how->layout == CV_LAYOUT_Q8) continue;
                const size_t row = random_below(&rng, the.W.rows);
                unsigned char *panels =
                    fence_aligned(&panel_fence, (the.W.rows + 15) / CV_PANEL * the.W.panel_bytes);
                set_weight(&the, panels, row, j, special[v]);
                check_special(&the, true, "a weight that is not finite");
                for (size_t i = 0; isnan(special[v]) && i < the.y_floats; i++)
                    if (i % the.ldy < the.W.rows)
                        assert_int_equal(isnan(the.y[i]) != 0, i % the.ldy == row);
            }
}

/* Sums that overflow on the way are infinite, not clamped; subnormal weights are not lost, except
 * where they are pieces of bf16. */
static void test_extremes(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 24);
    const cv_kernels *table;
    for (size_t s = 0; s < 3; s++)
        for (size_t T = 1; T <= 5; T++)
            for (size_t i = 0; (table = product_table(i)); i++) {
                make_matrix(&the, &STORAGES[s], &rng, 17, 40);
                make_vectors(&the, &rng, T);
                the.add = false;
                unsigned char *panels = fence_aligned(&panel_fence, 2 * the.W.panel_bytes);
                const float small = STORAGES[s].layout == CV_LAYOUT_F16 ? 0x1p-24f : 0x1p-133f;
                for (size_t j = 0; j < 40; j++) {
                    set_weight(&the, panels, 0, j, 3e4f);
                    set_weight(&the, panels, 16, j, small);
                    for (size_t t = 0; t < T; t++)
                        the.x[t * the.ldx + j] = 1e38f;
                }
                run_rows(table, &the, 0, 2, 0, T);
                const bool split = is_split(table);
                for (size_t t = 0; t < T; t++) {
                    const bool lost = split && small < 0x1p-126f;
                    const double sum = lost ? 0.0 : 40.0 * (double)small * (double)1e38f;
                    assert_true(same_kind(the.y[t * the.ldy], INFINITY, split));
                    assert_true(fabs((double)the.y[t * the.ldy + 16] - sum) <= 1e-5 * sum);
                }
            }
}

/* ---- the pieces of split sums --------------------------------------------------------------- */

/* x rounded to bf16, ties away from zero. */
static float upper_half(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return float_of((bits + 0x8000) & 0xffff0000);
}

/* x1 w1 + x2 w1 + x1 w2 of finite numbers, exactly. */
static double split_product(float x, float w)
{
    const float x1 = upper_half(x), w1 = upper_half(w);
    const float x2 = cv_bf16_to_f32(cv_f32_to_bf16(x - x1));
    const float w2 = cv_bf16_to_f32(cv_f32_to_bf16(w - w1));
    return (double)x1 * (double)w1 + (double)x2 * (double)w1 + (double)x1 * (double)w2;
}

typedef struct loss {
    double whole;    /* largest error of a sum, relative to that of absolute values */
    double rounding; /* the same beside the sum of split products */
} loss;

static loss largest_loss(const cv_kernels *table, const storage *how, cv_rng *rng, size_t cols)
{
    loss worst = { 0 };
    for (int round = 0; round < 20; round++) {
        make_matrix(&the, how, rng, 64, cols);
        make_vectors(&the, rng, 64);
        the.add = false;
        solve(&the);
        run_rows(table, &the, 0, 4, 0, the.T);
        for (size_t t = 0; t < the.T; t++)
            for (size_t i = 0; i < the.W.rows; i++) {
                const size_t at = t * the.ldy + i;
                const double y = (double)the.y[at];
                double sum = 0.0;
                for (size_t j = 0; j < cols; j++)
                    sum += split_product(the.x[t * the.ldx + j], (float)the.w[i][j]);
                if (how->layout == CV_LAYOUT_F32)
                    sum = the.exact[at]; /* three pieces lose nothing */
                worst.whole = fmax(worst.whole, fabs(y - the.exact[at]) / the.size[at]);
                worst.rounding = fmax(worst.rounding, fabs(y - sum) / the.size[at]);
            }
    }
    return worst;
}

/* A sum of tiles is that of the products of pieces, but for roundings of f32, which have both signs
 * and stay below 2^-22.  A piece in the wrong place, or one left out, costs 2^-12 and more. */
static void test_split_sums(void **state)
{
    (void)state;
    const cv_kernels *table = cv_kernels_for(CV_CPU_AMX);
    if (!table) {
        print_message("SKIP: no AMX on this machine, or the system refuses it\n");
        skip();
    }
    cv_rng rng;
    cv_rng_seed(&rng, 26);
    for (size_t s = 0; s < COUNT(STORAGES); s++)
        for (size_t cols = 32; is_split(table) && cols <= 192; cols += 160) {
            const loss worst = largest_loss(table, &STORAGES[s], &rng, cols);
            print_message("%s, %zu inputs: loses 2^%.1f, 2^%.1f of it by rounding\n",
                          STORAGES[s].name, cols, log2(worst.whole), log2(worst.rounding));
            assert_true(worst.rounding <= 0x1p-22);
        }
}

/* Of what may be rounded, inputs that bf16 holds lose nothing; others are rounded to the nearest, which
 * gives the same bits as if they had been so before. */
static void test_rounded_inputs(void **state)
{
    static float y[MOST_Y];
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 27);
    if (!cv_kernels_for(CV_CPU_AMX) && !cv_kernels_for(CV_CPU_BF16))
        print_message("SKIP: no kernels of this machine round\n");
    for (size_t n = 0; n < 60; n++) {
        make_matrix(&the, &STORAGES[2], &rng, edgy(&rng, MOST_ROWS, 1), edgy(&rng, MOST_COLS, 1));
        assert_int_equal(the.W.layout, CV_LAYOUT_BF16);
        the.W.rounded = true;
        make_vectors(&the, &rng, random_in(&rng, 1, MOST_T));
        const cv_kernels *amx = cv_kernels_for(CV_CPU_AMX), *bf16 = cv_kernels_for(CV_CPU_BF16);
        const cv_kernels *table = amx && n % 2 ? amx : bf16;
        const size_t panels = (the.W.rows + CV_PANEL - 1) / CV_PANEL;
        memcpy(the.y, the.before, the.y_floats * sizeof *the.y);
        if (table) run_rows(table, &the, 0, panels, 0, the.T);
        memcpy(y, the.y, the.y_floats * sizeof *y);
        for (size_t i = 0; i < the.x_floats; i++)
            the.x[i] = cv_bf16_to_f32(cv_f32_to_bf16(the.x[i]));
        check_problem(&the, &rng);
        memcpy(the.y, the.before, the.y_floats * sizeof *the.y);
        if (table) run_rows(table, &the, 0, panels, 0, the.T);
        if (table && !same_bits(the.y, y, the.y_floats))
            describe(table, &the, "inputs are not rounded to the nearest");
    }
}

/* Where nothing may be rounded the table of BF16 is that of AVX-512, to the bit. */
static void test_bf16_is_avx512(void **state)
{
    static float y[MOST_Y];
    (void)state;
    const cv_kernels *bf16 = cv_kernels_for(CV_CPU_BF16), *avx512 = cv_kernels_for(CV_CPU_AVX512);
    if (!bf16) {
        print_message("SKIP: no AVX-512 BF16 on this machine\n");
        skip();
    }
    cv_rng rng;
    cv_rng_seed(&rng, 28);
    for (size_t s = 0; s < COUNT(STORAGES); s++) {
        make_matrix(&the, &STORAGES[s], &rng, MOST_ROWS, 288);
        make_vectors(&the, &rng, MOST_T);
        memcpy(the.y, the.before, the.y_floats * sizeof *the.y);
        run_rows(avx512, &the, 0, MOST_PANELS, 0, the.T);
        memcpy(y, the.y, the.y_floats * sizeof *y);
        memcpy(the.y, the.before, the.y_floats * sizeof *the.y);
        run_rows(bf16, &the, 0, MOST_PANELS, 0, the.T);
        assert_true(same_bits(the.y, y, the.y_floats));
    }
}

/* More rows than are packed together, and more panels: each row and panel is as if it were alone. */
static void test_many_rounded(void **state)
{
    enum { ROWS = 640, COLS = 272, T = 410 };
    static float x[T * COLS], y[T * ROWS], one[ROWS], weights[ROWS * COLS];
    static _Alignas(64) uint16_t panels[ROWS * COLS];
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 29);
    fill_normal(&rng, x, T * COLS, 0.0f, 1.0f);
    fill_normal(&rng, weights, ROWS * COLS, 0.0f, 1.0f);
    for (size_t i = 0; i < ROWS * COLS; i++)
        panels[i] = cv_f32_to_bf16(weights[i]);
    const cv_matrix W = { .rows = ROWS,
                          .cols = COLS,
                          .layout = CV_LAYOUT_BF16,
                          .rounded = true,
                          .panel_bytes = COLS * CV_PANEL * sizeof *panels,
                          .panels = (const unsigned char *)panels };
    float *scratch = aligned_alloc(64, (cv_matmul_scratch(T) * sizeof(float) + 63) / 64 * 64);
    assert_non_null(scratch);
    const cv_kernels *table;
    for (size_t i = 0; (table = product_table(i)); i++) {
        table->matmul(&W, 0, ROWS / CV_PANEL, T, x, COLS, y, ROWS, false, scratch);
        for (size_t t = 0; t < T; t += 11) {
            for (size_t p = 0; p < ROWS / CV_PANEL; p += 8)
                table->matmul(&W, p, p + 8, 1, x + t * COLS, COLS, one, ROWS, false, scratch);
            assert_true(same_bits(one, y + t * ROWS, ROWS));
        }
    }
    free(scratch);
}

static int make_fences(void **state)
{
    (void)state;
    fence_make(&panel_fence, (size_t)MOST_PANELS * CV_PANEL * MOST_COLS * sizeof(float));
    fence_make(&x_fence, (size_t)MOST_T * (MOST_COLS + MOST_EXTRA) * sizeof(float));
    fence_make(&y_fence, MOST_Y * sizeof(float));
    fence_make(&scratch_fence, cv_matmul_scratch(MOST_T) * sizeof(float));
    return 0;
}

static int free_fences(void **state)
{
    (void)state;
    fence_free(&panel_fence);
    fence_free(&x_fence);
    fence_free(&y_fence);
    fence_free(&scratch_fence);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes),          cmocka_unit_test(test_rows_of_tiles),
        cmocka_unit_test(test_every_row_count), cmocka_unit_test(test_every_column_count),
        cmocka_unit_test(test_special_values),  cmocka_unit_test(test_extremes),
        cmocka_unit_test(test_split_sums),      cmocka_unit_test(test_rounded_inputs),
        cmocka_unit_test(test_bf16_is_avx512),  cmocka_unit_test(test_many_rounded),
    };
    return cmocka_run_group_tests(tests, make_fences, free_fences);
}

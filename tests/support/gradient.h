/* gradient.h - an op walked back, against central differences of the op itself.
 *
 * For the tests that are compiled in double: there `float` means double, and the kernels are those
 * of ref.c.  A test lays out arrays, says which of them are inputs and outputs, and hands over a
 * function that calls the op as every member of a team would.  The loss is the sum of the outputs
 * times random numbers.  Gradients of inputs start at random numbers, because they are added to; then
 * once more at NaN, because of values that nobody came to before. */
#ifndef TEST_GRADIENT_H
#define TEST_GRADIENT_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "support.h"

#include "ops/tape.h"

_Static_assert(sizeof(float) == sizeof(double), "compile this test with float meaning double");

#define COUNT(array) (sizeof(array) / sizeof *(array))

enum { GRAD_ROOM = 1 << 16, GRAD_OWN = 1 << 16, GRAD_ARRAYS = 32, GRAD_SEQUENCES = 8 };
enum { GRAD_MEMBERS = 3, GRAD_SAMPLED = 240, GRAD_RECORDS = 1 << 14 };

/* Errors are relative to the largest gradient of an array, or to GRAD_SMALL. */
#define GRAD_STEP      1e-5
#define GRAD_TOLERANCE 1e-7
#define GRAD_SMALL     0.1

typedef enum grad_kind { GRAD_INPUT, GRAD_OUTPUT, GRAD_BETWEEN, GRAD_MEMORY } grad_kind;

typedef struct grad_array {
    const char *name;
    grad_kind kind;
    float *x;
    size_t n;
    double *exact; /* inputs: central differences; NAN: not computed */
} grad_array;

typedef struct gradient {
    const char *title;
    uint64_t seed;
    size_t T, n_sequences, state_size;
    cv_sequence sequences[GRAD_SEQUENCES];
    cv_grid grids[GRAD_SEQUENCES]; /* of pictures: the same rows */
    size_t n_grids;
    float *start, *state, *start_gradient; /* [n_sequences][state_size] */
    float *start_before;
    double *start_exact;
    bool no_start_gradient;

    float *values, *gradients, *kept;  /* [GRAD_ROOM] */
    float *weights, *weight_gradients; /* the same */
    float *before, *cotangents;        /* of values, then of weights */
    size_t n_values, n_weights;
    grad_array arrays[GRAD_ARRAYS];
    size_t n_arrays;

    void (*op)(const cv_run *run, void *arg);
    void *arg;
    double worst; /* the largest relative error so far */
} gradient;

/* ---- random numbers -------------------------------------------------------------------------- */

static inline uint64_t grad_random(uint64_t *seed)
{
    uint64_t z = (*seed += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline double grad_uniform(uint64_t *seed, double lo, double hi)
{
    return lo + (hi - lo) * (double)(grad_random(seed) >> 11) * 0x1p-53;
}

/* ---- layout ---------------------------------------------------------------------------------- */

static inline float *grad_floats(size_t n)
{
    float *x = calloc(n ? n : 1, sizeof *x);
    assert_non_null(x);
    return x;
}

/* Sequences of these lengths, each with a state of so many floats: random in [-1, 1]. */
static inline void gradient_open(gradient *g, const char *title, uint64_t seed,
                                 const size_t *lengths, size_t n_sequences, size_t state_size)
{
    *g = (gradient){
        .title = title, .seed = seed, .n_sequences = n_sequences, .state_size = state_size
    };
    const size_t size = n_sequences * state_size;
    g->start = grad_floats(size);
    g->state = grad_floats(size);
    g->start_gradient = grad_floats(size);
    g->start_exact = grad_floats(size);
    g->start_before = grad_floats(size);
    for (size_t i = 0; i < size; i++) {
        g->start[i] = grad_uniform(&g->seed, -1.0, 1.0);
        g->start_before[i] = grad_uniform(&g->seed, -1.0, 1.0);
    }
    for (size_t i = 0; i < n_sequences; i++) {
        g->sequences[i] = (cv_sequence){ .begin = g->T,
                                         .n = lengths[i],
                                         .state = g->state + i * state_size,
                                         .start = g->start + i * state_size,
                                         .start_gradient = g->start_gradient + i * state_size };
        g->T += lengths[i];
    }
    float **blocks[] = { &g->values, &g->gradients, &g->kept, &g->weights, &g->weight_gradients };
    for (size_t i = 0; i < COUNT(blocks); i++)
        *blocks[i] = grad_floats(GRAD_ROOM);
    g->before = grad_floats(2 * GRAD_ROOM);
    g->cotangents = grad_floats(2 * GRAD_ROOM);
}

/* Pictures of these heights and widths, perhaps with a class token behind each. */
static inline void gradient_open_grids(gradient *g, const char *title, uint64_t seed,
                                       const size_t (*sides)[2], size_t n_grids, bool class_token)
{
    size_t lengths[GRAD_SEQUENCES];
    assert_true(n_grids <= GRAD_SEQUENCES);
    for (size_t i = 0; i < n_grids; i++)
        lengths[i] = sides[i][0] * sides[i][1] + class_token;
    gradient_open(g, title, seed, lengths, n_grids, 0);
    g->n_grids = n_grids;
    for (size_t i = 0; i < n_grids; i++)
        g->grids[i] = (cv_grid){
            .begin = g->sequences[i].begin, .n = lengths[i], .h = sides[i][0], .w = sides[i][1]
        };
}

static inline void gradient_close(gradient *g)
{
    for (size_t i = 0; i < g->n_arrays; i++)
        free(g->arrays[i].exact);
    float *blocks[] = {
        g->start,  g->state,     g->start_gradient, g->start_exact, g->start_before,
        g->values, g->gradients, g->kept,           g->weights,     g->weight_gradients,
        g->before, g->cotangents
    };
    for (size_t i = 0; i < COUNT(blocks); i++)
        free(blocks[i]);
}

static inline float *grad_place(gradient *g, const char *name, grad_kind kind, float *block,
                                size_t *used, size_t n, double lo, double hi)
{
    assert_true(*used + cv_apart(n) <= GRAD_ROOM && g->n_arrays < GRAD_ARRAYS);
    float *x = block + *used;
    *used += cv_apart(n);
    for (size_t i = 0; i < n; i++)
        x[i] = grad_uniform(&g->seed, lo, hi);
    g->arrays[g->n_arrays++] = (grad_array){ .name = name,
                                             .kind = kind,
                                             .x = x,
                                             .n = n,
                                             .exact = kind == GRAD_INPUT ? grad_floats(n) : NULL };
    return x;
}

/* n floats among the common buffers, random in [lo, hi]; those that are read and written inside the
 * op are GRAD_BETWEEN, and what an op remembers is GRAD_MEMORY, right behind its buffer. */
static inline float *grad_value(gradient *g, const char *name, grad_kind kind, size_t n, double lo,
                                double hi)
{
    return grad_place(g, name, kind, g->values, &g->n_values, n, lo, hi);
}

/* n floats of weights. */
static inline float *grad_weight(gradient *g, const char *name, size_t n, double lo, double hi)
{
    return grad_place(g, name, GRAD_INPUT, g->weights, &g->n_weights, n, lo, hi);
}

/* Where the gradient of a value or weight stands. */
static inline float *grad_of(const gradient *g, const float *x)
{
    return x >= g->values && x < g->values + GRAD_ROOM ? g->gradients + (x - g->values)
                                                       : g->weight_gradients + (x - g->weights);
}

static inline size_t grad_index(const gradient *g, const float *x)
{
    return x >= g->values && x < g->values + GRAD_ROOM ? (size_t)(x - g->values)
                                                       : GRAD_ROOM + (size_t)(x - g->weights);
}

/* ---- running --------------------------------------------------------------------------------- */

typedef struct grad_pass {
    gradient *g;
    bool back, fresh; /* fresh: nobody came to the gradients of values before */
    cv_first_come first_come;
    float *own[GRAD_MEMBERS], *matmul[GRAD_MEMBERS];
    unsigned char *records[GRAD_MEMBERS];
    bool full[GRAD_MEMBERS];
} grad_pass;

static inline bool grad_is_value(const gradient *g, const grad_array *array)
{
    return grad_index(g, array->x) < GRAD_ROOM;
}

/* Gradients that nobody came to, but those of outputs. */
static inline void grad_seed_fresh(gradient *g, cv_first_come *first_come)
{
    size_t places = 0;
    for (size_t i = 0; i < g->n_values; i++)
        g->gradients[i] = NAN;
    for (size_t a = 0; a < g->n_arrays; a++) {
        const grad_array *array = &g->arrays[a];
        const bool output = array->kind == GRAD_OUTPUT;
        float *d = grad_of(g, array->x);
        for (size_t i = 0; output && i < array->n; i++)
            d[i] = g->cotangents[grad_index(g, array->x) + i];
        for (size_t i = 0; !grad_is_value(g, array) && i < array->n; i++)
            d[i] = 0.0;
        if (grad_is_value(g, array)) atomic_store(&first_come->first[places++], output);
    }
}

static inline void grad_tell_places(const gradient *g, cv_first_come *first_come, cv_tape *tape)
{
    tape->first_come = first_come;
    tape->n_gradients = g->n_values;
    tape->op = 1;
    for (size_t a = 0; a < g->n_arrays; a++)
        if (grad_is_value(g, &g->arrays[a]))
            tape->begins[tape->n_places++] = grad_index(g, g->arrays[a].x);
}

/* Gradients of outputs, and what those of inputs begin with. */
static inline void grad_seed_gradients(gradient *g)
{
    for (size_t a = 0; a < g->n_arrays; a++) {
        const grad_array *array = &g->arrays[a];
        float *d = grad_of(g, array->x),
              *first = array->kind == GRAD_OUTPUT ? g->cotangents : g->before;
        first += grad_index(g, array->x);
        for (size_t i = 0; i < array->n; i++)
            d[i] = array->kind == GRAD_INPUT || array->kind == GRAD_OUTPUT ? first[i] : 0.0;
    }
}

static inline void grad_member(const cv_member *me, void *arg)
{
    grad_pass *pass = arg;
    gradient *g = pass->g;
    cv_tape tape = { .values = g->values,
                     .gradients = g->gradients,
                     .n_values = g->n_values,
                     .weights = g->weights,
                     .weight_gradients = g->weight_gradients,
                     .n_weights = g->n_weights,
                     .own = pass->own[me->id],
                     .records = pass->records[me->id],
                     .size = GRAD_RECORDS };
    cv_run run = { .kernel = &cv_kernels_ref,
                   .me = me,
                   .sequences = g->sequences,
                   .n_sequences = g->n_sequences,
                   .grids = g->grids,
                   .n_grids = g->n_grids,
                   .matmul = pass->matmul[me->id],
                   .tape = pass->back ? &tape : NULL };
    if (pass->fresh) grad_tell_places(g, &pass->first_come, &tape);
    cv_run_rows(&run, g->T);
    g->op(&run, g->arg);
    cv_barrier(me);
    if (!pass->back) return;
    pass->full[me->id] = tape.full;
    if (me->id == 0 && pass->fresh)
        grad_seed_fresh(g, &pass->first_come);
    else if (me->id == 0)
        grad_seed_gradients(g);
    cv_barrier(me);
    cv_walk_back(&run);
}

/* One forward pass from the kept values, and with `back` the way back; the loss. */
static inline double grad_run(gradient *g, cv_team *team, grad_pass *pass)
{
    memcpy(g->values, g->kept, g->n_values * sizeof *g->values);
    memcpy(g->state, g->start, g->n_sequences * g->state_size * sizeof *g->state);
    cv_team_run(team, grad_member, pass);
    double loss = 0.0;
    for (size_t a = 0; a < g->n_arrays; a++) {
        const grad_array *array = &g->arrays[a];
        const float *cotangent = g->cotangents + grad_index(g, array->x);
        for (size_t i = 0; array->kind == GRAD_OUTPUT && i < array->n; i++)
            loss += array->x[i] * cotangent[i];
    }
    return loss;
}

/* ---- checking -------------------------------------------------------------------------------- */

/* The slope of the loss along one number, which lies where the next pass reads it. */
static inline double grad_slope(gradient *g, cv_team *team, grad_pass *pass, float *x)
{
    const double kept = *x;
    *x = kept + GRAD_STEP;
    const double above = grad_run(g, team, pass);
    *x = kept - GRAD_STEP;
    const double below = grad_run(g, team, pass);
    *x = kept;
    return (above - below) / (2.0 * GRAD_STEP);
}

/* All of a short array, a random part of a long one. */
static inline void grad_slopes(gradient *g, cv_team *team, grad_pass *pass, float *x, size_t n,
                               double *slopes)
{
    for (size_t i = 0; i < n; i++) {
        const bool taken = n <= GRAD_SAMPLED || grad_random(&g->seed) % n < GRAD_SAMPLED;
        slopes[i] = taken ? grad_slope(g, team, pass, x + i) : (double)NAN;
    }
}

static inline void grad_compare(gradient *g, size_t members, const char *name, size_t n,
                                const float *got, const float *before, const double *exact)
{
    double largest = GRAD_SMALL;
    for (size_t i = 0; i < n; i++)
        if (fabs(exact[i]) > largest) largest = fabs(exact[i]);
    for (size_t i = 0; i < n; i++) {
        if (isnan(exact[i])) continue;
        const double value = got[i] - before[i];
        const double error = fabs(value - exact[i]) / largest;
        if (!(error <= GRAD_TOLERANCE))
            fail_msg("%s, %zu members: the gradient of %s[%zu] is %.12g, differences give %.12g",
                     g->title, members, name, i, value, exact[i]);
        if (error > g->worst) g->worst = error;
    }
}

static inline void grad_compare_all(gradient *g, size_t members)
{
    for (size_t a = 0; a < g->n_arrays; a++) {
        const grad_array *array = &g->arrays[a];
        if (array->kind == GRAD_INPUT)
            grad_compare(g, members, array->name, array->n, grad_of(g, array->x),
                         g->before + grad_index(g, array->x), array->exact);
    }
    if (!g->no_start_gradient)
        grad_compare(g, members, "start", g->n_sequences * g->state_size, g->start_gradient,
                     g->start_before, g->start_exact);
}

static inline void grad_differences(gradient *g, grad_pass *pass)
{
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, 1, &team, &err), &err);
    pass->back = false;
    for (size_t a = 0; a < g->n_arrays; a++) {
        grad_array *array = &g->arrays[a];
        if (array->kind != GRAD_INPUT) continue;
        const bool value = grad_index(g, array->x) < GRAD_ROOM;
        float *from = value ? g->kept + (array->x - g->values) : array->x;
        grad_slopes(g, team, pass, from, array->n, array->exact);
    }
    grad_slopes(g, team, pass, g->start, g->n_sequences * g->state_size, g->start_exact);
    cv_team_free(team);
}

/* With so many members. */
static inline void grad_check_team(gradient *g, grad_pass *pass, size_t members)
{
    cv_team *team;
    corvid_error err;
    ASSERT_OK(cv_team_new(&cv_libc_allocator, members, &team, &err), &err);
    memcpy(g->start_gradient, g->start_before,
           g->n_sequences * g->state_size * sizeof *g->start_gradient);
    grad_run(g, team, pass);
    cv_team_free(team);
    for (size_t m = 0; m < members; m++)
        assert_false(pass->full[m]);
    grad_compare_all(g, members);
}

/* Walks the op back with 1 to 3 members, and compares what each team finds. */
static inline void gradient_check(gradient *g, void (*op)(const cv_run *run, void *arg), void *arg)
{
    grad_pass pass = { .g = g };
    g->op = op;
    g->arg = arg;
    for (size_t m = 0; m < GRAD_MEMBERS; m++) {
        pass.own[m] = grad_floats(GRAD_OWN);
        pass.matmul[m] = grad_floats(cv_matmul_scratch(g->T));
        pass.records[m] = calloc(GRAD_RECORDS, 1);
        assert_non_null(pass.records[m]);
    }
    memcpy(g->kept, g->values, g->n_values * sizeof *g->kept);
    for (size_t i = 0; i < 2 * GRAD_ROOM; i++) {
        g->before[i] = grad_uniform(&g->seed, -1.0, 1.0);
        g->cotangents[i] = grad_uniform(&g->seed, -1.0, 1.0);
    }
    grad_differences(g, &pass);

    pass.back = true;
    for (size_t i = 0; g->no_start_gradient && i < g->n_sequences; i++)
        g->sequences[i].start_gradient = NULL;
    for (size_t members = 1; members <= GRAD_MEMBERS; members++)
        grad_check_team(g, &pass, members);
    memset(g->before, 0, 2 * GRAD_ROOM * sizeof *g->before);
    pass.fresh = true;
    for (size_t members = 1; members <= GRAD_MEMBERS; members++)
        grad_check_team(g, &pass, members);
    print_message("%-44s largest error %.1e\n", g->title, g->worst);

    for (size_t m = 0; m < GRAD_MEMBERS; m++) {
        free(pass.own[m]);
        free(pass.matmul[m]);
        free(pass.records[m]);
    }
}

/* ---- reference vectors ----------------------------------------------------------------------- */

/* The tensors of a safetensors file of F64, read without the library (whose readers are compiled
 * with another float). */
typedef struct grad_vectors {
    char *bytes;
    size_t n;
} grad_vectors;

static inline grad_vectors grad_vectors_open(const char *path)
{
    grad_vectors v = { NULL, 0 };
    v.bytes = test_read_file(path, &v.n);
    return v;
}

static inline void grad_vectors_close(grad_vectors *v)
{
    free(v->bytes);
}

/* Tensor NAME of exactly n numbers. */
static inline void grad_vectors_read(const grad_vectors *v, const char *name, double *out, size_t n)
{
    char quoted[80];
    uint64_t head;
    memcpy(&head, v->bytes, sizeof head);
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    const char *at = memmem(v->bytes + 8, head, quoted, strlen(quoted));
    if (!at) fail_msg("%s is not in the reference vectors", name);
    at = strstr(at, "\"data_offsets\"");
    assert_non_null(at);
    at = strchr(at, '[') + 1;
    char *end;
    const size_t begin = strtoul(at, &end, 10), stop = strtoul(end + 1, NULL, 10);
    assert_int_equal(stop - begin, n * sizeof *out);
    memcpy(out, v->bytes + 8 + head + begin, n * sizeof *out);
}

#endif

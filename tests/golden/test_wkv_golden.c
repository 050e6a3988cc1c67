/* test_wkv_golden.c - the recurrences of every table against the reference's vectors: outputs and
 * final states that were computed in double elsewhere.  [v4.wkv] [v5.wkv] [v6.wkv] [v7.wkv] */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "kernels/kernels.h"
#include "support.h"

#define VECTORS "rwkv-tiny/reference/wkv_vectors.safetensors"

/* Sums of 8 products over 37 tokens in float; 1.4e-6 was seen. */
#define TOLERANCE 1e-5

enum { T = 37, C = 6, N = 8, MOST = T * N };

/* A tensor's values, checked to be `count` of them. */
static void read_values(const cv_checkpoint *ckpt, const char *name, double *out, size_t count)
{
    corvid_error err;
    const cv_tensor *t = cv_checkpoint_find(ckpt, name);
    if (!t) fail_msg("%s: not in %s", name, ckpt->in.path);
    assert_int_equal(t->dtype, CV_F64);
    assert_int_equal(t->count, count);
    ASSERT_OK(cv_tensor_read(ckpt, t, 0, count, out, &err), &err);
}

static void read_floats(const cv_checkpoint *ckpt, const char *name, float *out, size_t count)
{
    double values[MOST];
    read_values(ckpt, name, values, count);
    for (size_t i = 0; i < count; i++)
        out[i] = (float)values[i];
}

static void check_close(const cv_kernels *table, const cv_checkpoint *ckpt, const char *name,
                        const float *got, size_t count)
{
    double want[MOST];
    read_values(ckpt, name, want, count);
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)got[i] - want[i]) <= TOLERANCE * (1.0 + fabs(want[i]))))
            fail_msg("%s: %s[%zu] is %.9g, expected %.9g", cv_cpu_level_name(table->level), name, i,
                     (double)got[i], want[i]);
}

/* The state's rows are values in the file and keys in the kernels. */
static void turn(float *S)
{
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < i; j++) {
            const float swap = S[i * N + j];
            S[i * N + j] = S[j * N + i];
            S[j * N + i] = swap;
        }
}

static void check_wkv4(const cv_kernels *table, const cv_checkpoint *ckpt)
{
    float w[C], u[C], k[T * C], v[T * C], y[T * C], aa[C] = { 0 }, bb[C] = { 0 }, pp[C];
    read_floats(ckpt, "wkv4.time_decay", w, C);
    read_floats(ckpt, "wkv4.time_first", u, C);
    read_floats(ckpt, "wkv4.k", k, T * C);
    read_floats(ckpt, "wkv4.v", v, T * C);
    for (size_t c = 0; c < C; c++) {
        w[c] = -expf(w[c]);
        pp[c] = -1e30f;
    }
    table->wkv4(T, C, C, w, u, k, v, y, aa, bb, pp);
    check_close(table, ckpt, "wkv4.y", y, T * C);
    check_close(table, ckpt, "wkv4.final_aa", aa, C);
    check_close(table, ckpt, "wkv4.final_bb", bb, C);
    check_close(table, ckpt, "wkv4.final_pp", pp, C);
}

/* Versions 5 and 6 differ in how many decays there are. */
static void check_wkv5(const cv_kernels *table, const cv_checkpoint *ckpt, const char *version,
                       size_t n_decays)
{
    float r[MOST], d[MOST], k[MOST], v[MOST], u[N], S[N * N], y[MOST];
    char name[32];
#define NAMED(suffix) (snprintf(name, sizeof name, "%s.%s", version, suffix), name)
    read_floats(ckpt, NAMED("r"), r, MOST);
    read_floats(ckpt, NAMED("d"), d, n_decays);
    read_floats(ckpt, NAMED("k"), k, MOST);
    read_floats(ckpt, NAMED("v"), v, MOST);
    read_floats(ckpt, NAMED("u"), u, N);
    read_floats(ckpt, NAMED("S0"), S, N * N);
    turn(S);
    table->decay6(n_decays, d, d);
    table->wkv5(T, N, N, n_decays == N ? 0 : N, r, d, k, v, u, y, S);
    turn(S);
    check_close(table, ckpt, NAMED("y"), y, MOST);
    check_close(table, ckpt, NAMED("S_final"), S, N * N);
#undef NAMED
}

/* The file writes the removal as S a b^T with a = -kk. */
static void check_wkv7(const cv_kernels *table, const cv_checkpoint *ckpt)
{
    float r[MOST], w[MOST], k[MOST], v[MOST], kk[MOST], b[MOST], S[N * N], y[MOST];
    read_floats(ckpt, "wkv7.r", r, MOST);
    read_floats(ckpt, "wkv7.w_raw", w, MOST);
    read_floats(ckpt, "wkv7.k", k, MOST);
    read_floats(ckpt, "wkv7.v", v, MOST);
    read_floats(ckpt, "wkv7.a", kk, MOST);
    read_floats(ckpt, "wkv7.b", b, MOST);
    read_floats(ckpt, "wkv7.S0", S, N * N);
    turn(S);
    table->decay7(MOST, w, w);
    for (size_t i = 0; i < MOST; i++)
        kk[i] = -kk[i];
    table->wkv7(T, N, N, r, w, k, v, kk, b, y, S);
    turn(S);
    check_close(table, ckpt, "wkv7.y", y, MOST);
    check_close(table, ckpt, "wkv7.S_final", S, N * N);
}

static void test_vectors(void **state)
{
    (void)state;
    static const cv_cpu_level LEVELS[] = { CV_CPU_REF, CV_CPU_AVX2, CV_CPU_AVX512, CV_CPU_NEON };
    corvid_error err;
    cv_checkpoint ckpt;
    NEED_DATA(path, VECTORS);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &ckpt, &err), &err);
    for (size_t i = 0; i < sizeof LEVELS / sizeof *LEVELS; i++) {
        const cv_kernels *table = cv_kernels_for(LEVELS[i]);
        if (!table) continue;
        check_wkv4(table, &ckpt);
        check_wkv5(table, &ckpt, "wkv5", N);
        check_wkv5(table, &ckpt, "wkv6", MOST);
        check_wkv7(table, &ckpt);
    }
    cv_checkpoint_close(&ckpt);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_vectors) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

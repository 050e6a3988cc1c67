/* test_score.c - scores of tokens: against the softmax of the logits, in double precision, and the
 * same however the text is cut. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "corvid.h"
#include "model_files.h"
#include "support.h"

enum { T = 150, CUTS = 8 };

static corvid_model *open_random(const char *shape)
{
    corvid_error err;
    corvid_model_options options;
    corvid_model *model;
    corvid_model_defaults(&options);
    options.n_threads = 2;
    options.chunk = 48;
    ASSERT_OK(corvid_model_random(shape, "f32", 3, &options, &model, &err), &err);
    return model;
}

/* ln softmax at token, and whether it is the first maximum; the slow and obvious way. */
static double log_softmax(const float *logits, size_t V, int32_t token, unsigned char *greedy)
{
    double sum = 0.0;
    size_t best = 0;
    for (size_t i = 1; i < V; i++)
        if (logits[i] > logits[best]) best = i;
    for (size_t i = 0; i < V; i++)
        sum += exp((double)logits[i] - (double)logits[best]);
    *greedy = best == (size_t)token;
    return (double)logits[token] - (double)logits[best] - log(sum);
}

static void test_against_softmax(void **state)
{
    (void)state;
    corvid_error err;
    corvid_model *model = open_random("rwkv7-tiny");
    corvid_stream *stream = model_stream(model);
    const size_t V = model_vocab(model);
    int32_t tokens[T];
    double scores[T];
    unsigned char greedy[T];
    float *logits = malloc(T * V * sizeof *logits);
    assert_non_null(logits);
    model_tokens(5, T, V, tokens);
    ASSERT_OK(corvid_feed_all(stream, tokens, T, logits, &err), &err);
    /* One token that is the likeliest, so that both answers occur. */
    size_t best = 0;
    for (size_t i = 1; i < V; i++)
        if (logits[(T - 2) * V + i] > logits[(T - 2) * V + best]) best = i;
    tokens[T - 1] = (int32_t)best;

    corvid_stream_reset(stream);
    ASSERT_OK(corvid_score(stream, tokens, T, NULL, scores, greedy, NULL, &err), &err);
    assert_true(scores[0] == 0.0 && greedy[0] == 0 && greedy[T - 1] == 1);
    double worst = 0.0;
    for (size_t i = 1; i < T; i++) {
        unsigned char first;
        const double exact = log_softmax(logits + (i - 1) * V, V, tokens[i], &first);
        worst = fmax(worst, fabs(scores[i] - exact));
        assert_int_equal(greedy[i], first);
    }
    model_report("scores", worst, 1e-6);
    free(logits);
    corvid_stream_free(stream);
    corvid_model_close(model);
}

/* The logits of one piece are what the next begins from, in one buffer. */
static void test_in_pieces(void **state)
{
    (void)state;
    corvid_error err;
    corvid_model *model = open_random("rwkv6-tiny");
    corvid_stream *stream = model_stream(model);
    const size_t V = model_vocab(model);
    int32_t tokens[T];
    double whole[T], pieces[T];
    unsigned char greedy[T], greedy_pieces[T];
    float *logits = malloc(V * sizeof *logits);
    assert_non_null(logits);
    model_tokens(6, T, V, tokens);
    ASSERT_OK(corvid_score(stream, tokens, T, NULL, whole, greedy, NULL, &err), &err);

    uint64_t seed = 7;
    for (int cut = 0; cut < CUTS; cut++) {
        corvid_stream_reset(stream);
        for (size_t at = 0; at < T;) {
            size_t n = 1 + model_random(&seed, 40);
            if (n > T - at) n = T - at;
            ASSERT_OK(corvid_score(stream, tokens + at, n, at ? logits : NULL, pieces + at,
                                   greedy_pieces + at, logits, &err),
                      &err);
            at += n;
        }
        model_same_bits("scores in pieces", whole, pieces, sizeof whole);
        model_same_bits("greedy in pieces", greedy, greedy_pieces, sizeof greedy);
    }
    free(logits);
    corvid_stream_free(stream);
    corvid_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_softmax),
        cmocka_unit_test(test_in_pieces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

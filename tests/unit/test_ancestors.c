/* test_ancestors.c - GPT, LSTM and attention-free transformers as whole models: they learn, are saved
 * and opened again, give the same however they are fed, and end where their places end. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/conversion.h"
#include "engine/engine.h"
#include "support.h"
#include "teach.h"
#include "train/init.h"
#include "train/shape.h"
#include "train/text_lesson.h"

enum { V = 23, CONTEXT = 90, T = 75, B = 4, LENGTH = 60 };

static const char *const ARCHS[] = { "gpt", "lstm", "aft-simple", "aft-full", "aft-local" };
enum { N_ARCHS = sizeof ARCHS / sizeof *ARCHS };

/* ---- Models ---------------------------------------------------------------------------------- */

static cv_source shape_of(const char *arch)
{
    const cv_shape_wish wish = { .arch = arch,
                                 .layers = 2,
                                 .width = 48,
                                 .head_size = 16,
                                 .vocabulary = V,
                                 .context = CONTEXT,
                                 .rank = 8,
                                 .window = 6 };
    cv_source source;
    corvid_error err;
    ASSERT_OK(cv_shape_for(&wish, &source, &err), &err);
    return source;
}

/* Tokens that repeat what stood seven before, or go on by a step: both can be learnt. */
static void write_text(uint64_t seed, int32_t *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        tokens[i] = i < 7 ? (int32_t)((seed >> 40) % V) : (tokens[i - 7] + tokens[i - 1]) % V;
        if (i % 13 > 4) tokens[i] = (tokens[i > 0 ? i - 1 : 0] * 3 + 1) % V;
    }
}

typedef struct school {
    cv_team *team;
    cv_source source;
    cv_learner learner;
} school;

static void open_school(school *s, const char *arch, size_t threads, bool again)
{
    corvid_error err;
    s->source = shape_of(arch);
    const cv_learner_options options = { .again = again };
    ASSERT_OK(cv_team_new(&cv_libc_allocator, threads, &s->team, &err), &err);
    ASSERT_OK(cv_learner_open(&cv_libc_allocator, s->team, cv_kernels_for(cv_cpu_best()),
                              &s->source, &options, &s->learner, &err),
              &err);
    for (size_t i = 0; i < s->learner.n_params; i++) {
        cv_param *p = &s->learner.params[i];
        ASSERT_OK(cv_init_fill(&s->source, 5, &p->view, p->value, NULL, &cv_libc_allocator, &err),
                  &err);
    }
    cv_learner_publish(&s->learner);
    ASSERT_OK(cv_learner_room(&s->learner, B, LENGTH, &err), &err);
}

static void close_school(school *s)
{
    cv_learner_close(&s->learner);
    cv_team_free(s->team);
}

/* So many steps; the loss of the last. */
static double teach(school *s, size_t steps)
{
    const cv_adam_settings settings = {
        .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.01, .clip = 1.0
    };
    teacher t;
    double loss = 0.0;
    corvid_error err;
    teacher_open(&t, &s->learner, cv_grouping_of(&s->source), &settings);
    for (size_t step = 0; step < steps; step++) {
        int32_t tokens[B * LENGTH], targets[B * LENGTH], text[LENGTH + 1];
        for (size_t b = 0; b < B; b++) {
            write_text(step * B + b, text, LENGTH + 1);
            memcpy(tokens + b * LENGTH, text, LENGTH * sizeof *text);
            memcpy(targets + b * LENGTH, text + 1, LENGTH * sizeof *text);
        }
        const cv_batch batch = { tokens, targets, B, LENGTH, 1.0 / (B * LENGTH), 0.0 };
        cv_learner_clear(&s->learner);
        ASSERT_OK(cv_learner_batch(&s->learner, &batch, &loss, &err), &err);
        cv_learner_gather(&s->learner);
        teacher_step(&t, 5e-3);
        cv_learner_publish(&s->learner);
    }
    teacher_close(&t);
    return loss;
}

/* ---- Engines --------------------------------------------------------------------------------- */

typedef struct opened {
    cv_checkpoint ckpt;
    cv_source source;
    cv_engine engine;
} opened;

static void save_and_open(const school *s, size_t threads, opened *o)
{
    corvid_error err;
    const char *path = test_scratch("ancestor.safetensors");
    const cv_source source = cv_learner_source(&s->learner);
    const cv_convert_settings settings = { .format = CV_SAFETENSORS, .keep = true };
    const cv_engine_options options = { .n_threads = threads, .chunk = 32 };
    ASSERT_OK(cv_convert_source(&cv_libc_allocator, &source, path, &settings, &err), &err);
    ASSERT_OK(cv_checkpoint_open(&cv_libc_allocator, path, &o->ckpt, &err), &err);
    ASSERT_OK(cv_source_open(&o->ckpt, &o->source, &err), &err);
    ASSERT_OK(cv_engine_open(&cv_libc_allocator, &o->source, &options, &o->engine, &err), &err);
}

static void close_opened(opened *o)
{
    cv_engine_close(&o->engine);
    cv_checkpoint_close(&o->ckpt);
}

static cv_stream stream_on(opened *o)
{
    cv_stream stream;
    corvid_error err;
    ASSERT_OK(cv_stream_init(&o->engine, &stream, &err), &err);
    return stream;
}

static void feed(cv_stream *stream, const int32_t *tokens, size_t n, float *logits)
{
    corvid_error err;
    cv_feed f = {
        .stream = stream, .tokens = tokens, .n = n, .want = CV_WANT_ALL, .logits = logits
    };
    ASSERT_OK(cv_engine_feed(stream->engine, &f, 1, &err), &err);
}

static double apart(const float *a, const float *b, size_t n)
{
    double most = 0.0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

/* ---- Tests ----------------------------------------------------------------------------------- */

/* What the learner says of a text is what the saved model says of it, and it has learnt something;
 * threads and computing again change no bit. */
static void test_learning(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        school s, other;
        opened o;
        int32_t text[LENGTH + 1];
        float logits[LENGTH * V];
        double loss, said = 0.0;
        corvid_error err;
        open_school(&s, ARCHS[i], 1, false);
        open_school(&other, ARCHS[i], 3, true);
        const double first = teach(&s, 1), same = teach(&other, 1);
        assert_true(first == same && fabs(first - log(V)) < 0.7);
        const double last = teach(&s, 120);
        print_message("%-10s %zu parameters, loss %.3f to %.3f\n", ARCHS[i], s.learner.n_params,
                      first, last);
        assert_true(last < 0.6 * first);
        assert_true(teach(&other, 120) == last);

        write_text(1234567, text, LENGTH + 1);
        const cv_batch batch = { text, text + 1, 1, LENGTH, 1.0, 0.0 };
        ASSERT_OK(cv_learner_score(&s.learner, &batch, &loss, &err), &err);
        save_and_open(&s, 2, &o);
        assert_string_equal(o.source.arch->name, ARCHS[i]);
        assert_memory_equal(&o.source.sizes, &s.source.sizes, sizeof s.source.sizes);
        cv_stream stream = stream_on(&o);
        feed(&stream, text, LENGTH, logits);
        for (size_t t = 0; t < LENGTH; t++)
            said -= cv_log_probability(o.engine.kernel, logits + t * V, V, text[t + 1], NULL);
        assert_true(fabs(said / LENGTH - loss) < 1e-5);
        cv_stream_free(&stream);
        close_opened(&o);
        close_school(&s);
        close_school(&other);
    }
}

/* Means are taken by blocks of a call, so that cutting it rounds differently. */
static double most_apart(const char *arch)
{
    return strcmp(arch, "aft-full") == 0 || strcmp(arch, "aft-local") == 0 ? 2e-5 : 0.0;
}

static void test_feeding(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++)
        for (size_t threads = 1; threads <= 3; threads++) {
            school s;
            opened o;
            int32_t text[T];
            static float whole[T * V], cut[T * V], together[3][T * V];
            corvid_error err;
            open_school(&s, ARCHS[i], 2, false);
            teach(&s, 20);
            save_and_open(&s, threads, &o);
            write_text(77, text, T);
            cv_stream stream = stream_on(&o), many[3];
            feed(&stream, text, T, whole);

            cv_stream_reset(&stream);
            for (size_t t = 0, n; t < T; t += n) {
                n = t % 3 == 0 ? 1 : t % 3 == 1 ? 7 : 3;
                if (n > T - t) n = T - t;
                feed(&stream, text + t, n, cut + t * V);
            }
            assert_true(apart(whole, cut, T * V) <= most_apart(ARCHS[i]));

            cv_feed feeds[3];
            for (size_t j = 0; j < 3; j++) {
                many[j] = stream_on(&o);
                feeds[j] = (cv_feed){ .stream = &many[j],
                                      .tokens = text,
                                      .n = T - 9 * j,
                                      .want = CV_WANT_ALL,
                                      .logits = together[j] };
            }
            ASSERT_OK(cv_engine_feed(&o.engine, feeds, 3, &err), &err);
            for (size_t j = 0; j < 3; j++) {
                assert_true(apart(whole, together[j], feeds[j].n * V) <= most_apart(ARCHS[i]));
                cv_stream_free(&many[j]);
            }
            cv_stream_free(&stream);
            close_opened(&o);
            close_school(&s);
        }
}

/* A state goes out and in again; one whose count is none leads nowhere. */
static void test_states(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        school s;
        opened o;
        int32_t text[T];
        float a[V], b[V];
        corvid_error err;
        const char *path = test_scratch("ancestor.state");
        open_school(&s, ARCHS[i], 1, false);
        save_and_open(&s, 1, &o);
        write_text(8, text, T);
        cv_stream first = stream_on(&o), second = stream_on(&o);
        float *all = malloc((T - 1) * V * sizeof *all);
        assert_non_null(all);
        feed(&first, text, T - 1, all);
        free(all);
        ASSERT_OK(cv_state_save(&first, path, &err), &err);
        ASSERT_OK(cv_state_load(&second, path, &err), &err);
        assert_int_equal(second.position, T - 1);
        feed(&first, text + T - 1, 1, a);
        feed(&second, text + T - 1, 1, b);
        assert_memory_equal(a, b, sizeof a);

        static const float counts[] = { -1.0f, 1e30f, NAN };
        const size_t n = cv_state_size(&o.engine.model);
        float *values = malloc(n * sizeof *values);
        assert_non_null(values);
        for (size_t j = 0; o.source.sizes.G && j < 3; j++) {
            cv_state_export(&first, values);
            for (size_t l = 0; l < 2; l++)
                values[l * n / 2] = counts[j];
            cv_state_import(&second, values);
            cv_feed f = { .stream = &second, .tokens = text, .n = 1 };
            assert_int_equal(cv_engine_feed(&o.engine, &f, 1, &err), CORVID_E_ARGUMENT);
        }
        free(values);
        cv_stream_free(&first);
        cv_stream_free(&second);
        close_opened(&o);
        close_school(&s);
    }
}

/* All but the LSTM know CONTEXT places; what does not fit is refused before anything changes. */
static void test_end_of_places(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_ARCHS; i++) {
        school s;
        opened o;
        static int32_t text[CONTEXT + 1];
        static float logits[(CONTEXT + 1) * V];
        corvid_error err;
        open_school(&s, ARCHS[i], 1, false);
        const bool endless = s.source.sizes.G == 0;
        const cv_batch batch = { text, text, 1, CONTEXT + 1, 1.0, 0.0 };
        double loss;
        assert_int_equal(cv_learner_score(&s.learner, &batch, &loss, &err),
                         endless ? CORVID_OK : CORVID_E_ARGUMENT);
        save_and_open(&s, 2, &o);
        cv_stream stream = stream_on(&o);
        cv_feed f = { .stream = &stream,
                      .tokens = text,
                      .n = CONTEXT + 1,
                      .want = CV_WANT_ALL,
                      .logits = logits };
        assert_int_equal(cv_engine_feed(&o.engine, &f, 1, &err),
                         endless ? CORVID_OK : CORVID_E_ARGUMENT);
        assert_int_equal(stream.position, endless ? CONTEXT + 1 : 0);
        if (!endless) {
            cv_feed twice[] = { f, f };
            twice[0].n = CONTEXT - 3;
            twice[1].n = 4;
            assert_int_equal(cv_engine_feed(&o.engine, twice, 2, &err), CORVID_E_ARGUMENT);
            feed(&stream, text, CONTEXT, logits);
            f.n = 1;
            assert_int_equal(cv_engine_feed(&o.engine, &f, 1, &err), CORVID_E_ARGUMENT);
            cv_stream_reset(&stream);
            feed(&stream, text, 1, logits);
        }
        cv_stream_free(&stream);
        close_opened(&o);
        close_school(&s);
    }
}

static corvid_status count_view(void *ctx, const cv_view *view, corvid_error *err)
{
    (void)err;
    *(size_t *)ctx += view->rows * view->cols;
    return CORVID_OK;
}

/* Four layers of width 128 over 65 characters and 64 places; the head is a matrix of its own. */
static void test_counts(void **state)
{
    (void)state;
    const size_t d = 128, outer = 2 * 65 * d, stack = outer + 64 * d + 4 * 12 * d * d + 9 * 2 * d;
    const struct {
        const char *arch;
        size_t parameters;
    } cases[] = { { "gpt", stack },
                  { "aft-simple", stack },
                  { "aft-full", stack + 4 * 2 * 64 * 64 },
                  { "aft-local", stack + 4 * (2 * 64 * 64 + 32) },
                  { "lstm", outer + 4 * (4 * d * 2 * d + 4 * d) } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const cv_shape_wish wish = {
            .arch = cases[i].arch, .layers = 4, .width = d, .vocabulary = 65, .context = 64
        };
        cv_source source;
        corvid_error err;
        size_t n = 0;
        ASSERT_OK(cv_shape_for(&wish, &source, &err), &err);
        ASSERT_OK(cv_source_each(&source, count_view, &n, &err), &err);
        assert_int_equal(n, cases[i].parameters);
    }
}

static void test_refused_shapes(void **state)
{
    (void)state;
    static const cv_shape_wish wishes[] = {
        { .arch = "gpt", .layers = 1, .width = 100, .vocabulary = 9 },
        { .arch = "gpt", .layers = 1, .width = 64, .vocabulary = 9, .context = 1 << 20 },
        { .arch = "lstm", .layers = 1, .width = 64, .vocabulary = 9, .inner = 64 },
        { .arch = "aft-full", .layers = 1, .width = 64, .vocabulary = 9, .rank = 1 << 20 },
        { .arch = "aft-local", .layers = 1, .width = 64, .vocabulary = 9, .window = 1 << 20 },
        { .arch = "aft", .layers = 1, .width = 64, .vocabulary = 9 },
    };
    for (size_t i = 0; i < sizeof wishes / sizeof *wishes; i++) {
        cv_source source;
        corvid_error err;
        assert_int_equal(cv_shape_for(&wishes[i], &source, &err), CORVID_E_ARGUMENT);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_learning), cmocka_unit_test(test_feeding),
        cmocka_unit_test(test_states),   cmocka_unit_test(test_end_of_places),
        cmocka_unit_test(test_counts),   cmocka_unit_test(test_refused_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* test_text_data.c - texts become the tokens that the tokenizer gives, split and sampled as said. */
#include "support.h"

#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/rng.h"
#include "binidx_bytes.h"
#include "piped_input.h"
#include "train/text_data.h"

static const corvid_allocator *const mem = &cv_libc_allocator;

/* ---- helpers -------------------------------------------------------------------------------- */

static cv_tokenizer *bytes_tokenizer(void)
{
    cv_tokenizer *tok = NULL;
    corvid_error err;
    ASSERT_OK(cv_tokenizer_bytes(mem, &tok, &err), &err);
    return tok;
}

/* All bytes, and tokens that overlap each other across any cut. */
static cv_tokenizer *overlapping_tokenizer(void)
{
    static const char *more[] = { "ab", "abc", "bca", "abcabcabd", " the", " then", "\n\n", "é" };
    const char *pieces[257 + 8];
    size_t lengths[257 + 8];
    static char single[256];
    cv_tokenizer *tok = NULL;
    corvid_error err;
    pieces[0] = "";
    lengths[0] = 0;
    for (size_t b = 0; b < 256; b++) {
        single[b] = (char)(unsigned char)b;
        pieces[b + 1] = &single[b];
        lengths[b + 1] = 1;
    }
    for (size_t i = 0; i < 8; i++) {
        pieces[257 + i] = more[i];
        lengths[257 + i] = strlen(more[i]);
    }
    ASSERT_OK(cv_tokenizer_pieces(mem, pieces, lengths, 257 + 8, &tok, &err), &err);
    return tok;
}

static cv_text_data open_data(const cv_tokenizer *tok, const cv_text_source *sources, size_t n,
                              const char *cache, double validation)
{
    const cv_text_options options = {
        .sources = sources, .n_sources = n, .tok = tok, .cache = cache, .validation = validation
    };
    cv_text_data data;
    corvid_error err;
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    return data;
}

static corvid_status try_data(const cv_tokenizer *tok, const char *path, const char *cache,
                              corvid_error *err)
{
    const cv_text_source source = { .path = path };
    const cv_text_options options = {
        .sources = &source, .n_sources = 1, .tok = tok, .cache = cache
    };
    cv_text_data data;
    const corvid_status status = cv_text_data_open(mem, &options, &data, err);
    cv_text_data_close(&data);
    return status;
}

/* The data are these documents, each encoded at once, with a separator between two. */
static void assert_documents(const cv_text_data *data, const cv_tokenizer *tok,
                             const char *const *texts, const size_t *lengths, size_t n)
{
    corvid_error err;
    uint64_t at = 0;
    assert_int_equal(data->cache.n_documents, n);
    for (size_t d = 0; d < n; d++) {
        int32_t *want = NULL, *have;
        size_t count;
        ASSERT_OK(cv_tokenizer_encode(tok, mem, texts[d], lengths[d], &want, &count, &err), &err);
        assert_int_equal(data->cache.starts[d], at);
        have = malloc((count + 1) * sizeof *have);
        assert_non_null(have);
        const size_t with_separator = count + (d + 1 < n ? 1 : 0);
        ASSERT_OK(cv_token_cache_read(&data->cache, at, with_separator, have, &err), &err);
        assert_memory_equal(have, want, count * sizeof *have);
        if (d + 1 < n) assert_int_equal(have[count], 0);
        at += with_separator;
        free(have);
        cv_free(mem, want);
    }
    assert_int_equal(data->cache.n_tokens, at);
}

/* ---- encoding ------------------------------------------------------------------------------- */

static char *long_text(size_t n, uint64_t seed, bool any_byte)
{
    static const char *words[] = {
        "abcabcabd", "abcabcab", "ab", " then", " the", "é", "\n", "x."
    };
    cv_rng rng;
    cv_rng_seed(&rng, seed);
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t at = 0; at < n;) {
        const uint64_t chance = cv_rng_next(&rng) >> 32;
        const char *word = words[chance % 8];
        if (any_byte && chance % 64 == 63)
            text[at++] = (char)(unsigned char)(chance >> 8);
        else
            for (; *word && at < n; word++)
                text[at++] = *word;
    }
    return text;
}

static void cuts_do_not_show(void **state)
{
    (void)state;
    cv_tokenizer *toks[2] = { bytes_tokenizer(), overlapping_tokenizer() };
    for (size_t i = 0; i < 2; i++)
        for (size_t round = 0; round < 3; round++) {
            const size_t n = ((size_t)1 << 20) * 2 + 12345 * round;
            char *text = long_text(n, 10 + round, round > 0);
            const cv_text_source source = { .path = "text", .bytes = text, .n = n };
            cv_text_data data = open_data(toks[i], &source, 1, NULL, 0.0);
            assert_documents(&data, toks[i], (const char *const *)&text, &n, 1);
            assert_int_equal(data.cache.source_bytes, n);
            cv_text_data_close(&data);
            cv_text_data_close(&data);
            free(text);
        }
    for (size_t i = 0; i < 2; i++)
        cv_tokenizer_free(toks[i]);
}

/* A real byte-pair vocabulary, and a text of which hardly a line ends where a piece does. */
static void cuts_do_not_show_to_bpe(void **state)
{
    (void)state;
    NEED_DATA(vocabulary, "tokenizer/20B_tokenizer.json");
    NEED_DATA(book, "text/gutenberg/valid/great-expectations.txt");
    NEED_DATA(poems, "text/chinese/tang-valid.txt");
    cv_tokenizer *tok = NULL;
    corvid_error err;
    size_t json_n, book_n, poems_n;
    char *json = test_read_file(vocabulary, &json_n);
    char *text = test_read_file(book, &book_n), *more = test_read_file(poems, &poems_n);
    ASSERT_OK(cv_tokenizer_parse(mem, json, json_n, "20B", &tok, &err), &err);
    const size_t n = 2 * (book_n + poems_n);
    char *all = malloc(n);
    assert_non_null(all);
    for (size_t i = 0; i < 2; i++) {
        memcpy(all + i * (book_n + poems_n), text, book_n);
        memcpy(all + i * (book_n + poems_n) + book_n, more, poems_n);
    }
    const cv_text_source source = { .bytes = all, .n = n };
    cv_text_data data = open_data(tok, &source, 1, NULL, 0.0);
    assert_documents(&data, tok, (const char *const *)&all, &n, 1);
    cv_text_data_close(&data);
    cv_tokenizer_free(tok);
    free(all);
    free(more);
    free(text);
    free(json);
}

static void make_folder(char folder[512], const char *name)
{
    snprintf(folder, 512, "%s", test_scratch(name));
    assert_int_equal(mkdir(folder, 0700), 0);
}

static void put_file(const char *folder, const char *name, const char *text, char path[2048])
{
    snprintf(path, 2048, "%s/%s", folder, name);
    test_write_file(path, text, strlen(text));
}

static void folders_and_lines(void **state)
{
    (void)state;
    char folder[512], deeper[1024], path[2048];
    cv_tokenizer *tok = overlapping_tokenizer();
    make_folder(folder, "texts");
    snprintf(deeper, sizeof deeper, "%s/m-deeper", folder);
    assert_int_equal(mkdir(deeper, 0700), 0);
    put_file(folder, "z.txt", "last", path);
    put_file(folder, "a.txt", "first \xFF\xFE bytes", path);
    put_file(folder, "notes.md", "left out", path);
    put_file(folder, ".hidden.txt", "left out", path);
    put_file(folder, "empty.txt", "", path);
    put_file(deeper, "b.jsonl",
             "\xEF\xBB\xBF{\"text\": \"one\\u00e9\\n\", \"meta\": {\"text\": 1}}\r\n"
             "\n  \n{\"text\":\"\"}\n{\"text\":\"nul\\u0000in\"}\n{\"text\":\"no line end\"}",
             path);
    snprintf(path, sizeof path, "%s/m-deeper/circle", folder);
    assert_int_equal(symlink(folder, path), 0);
    const cv_text_source sources[] = { { .path = folder }, { .bytes = "memory", .n = 6 } };
    static const char *const texts[] = { "first \xFF\xFE bytes", "one\xC3\xA9\n", "nul\0in",
                                         "no line end",          "last",          "memory" };
    static const size_t lengths[] = { 14, 6, 6, 11, 4, 6 };
    cv_text_data data = open_data(tok, sources, 2, NULL, 0.0);
    assert_documents(&data, tok, texts, lengths, 6);
    assert_int_equal(data.train.end, data.cache.n_tokens);
    assert_int_equal(data.validation.begin, data.validation.end);
    cv_text_data_close(&data);
    cv_tokenizer_free(tok);
}

/* Lines longer than what is read at a time. */
static void long_lines(void **state)
{
    (void)state;
    enum { LINES = 5, LONGEST = 2500000 };
    static const size_t lengths[LINES] = { 10, LONGEST, 1, 1048576, 7 };
    static const char *texts[LINES];
    cv_tokenizer *tok = bytes_tokenizer();
    char *letters = malloc(LONGEST);
    assert_non_null(letters);
    memset(letters, 'q', LONGEST);
    const char *path = test_scratch("long.jsonl");
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (size_t i = 0; i < LINES; i++) {
        texts[i] = letters;
        fprintf(file, "{\"text\":\"%.*s\"}\n", (int)lengths[i], letters);
    }
    assert_int_equal(fclose(file), 0);
    const cv_text_source source = { .path = path };
    cv_text_data data = open_data(tok, &source, 1, NULL, 0.0);
    assert_documents(&data, tok, texts, lengths, LINES);
    cv_text_data_close(&data);
    free(letters);
    cv_tokenizer_free(tok);
}

/* ---- the cache ------------------------------------------------------------------------------ */

static void cache_is_used_again(void **state)
{
    (void)state;
    char folder[512], path[2048], cache[2048];
    cv_tokenizer *tok = bytes_tokenizer(), *other = overlapping_tokenizer();
    make_folder(folder, "cached");
    put_file(folder, "a.txt", "some text, once", path);
    snprintf(cache, sizeof cache, "%s/tokens", folder);
    const cv_text_source source = { .path = path };
    static const char *text = "some text, once", *longer = "some other text";
    const size_t n = strlen(text);

    static const bool reused[] = { false, true };
    for (size_t i = 0; i < 2; i++) {
        cv_text_data data = open_data(tok, &source, 1, cache, 0.0);
        assert_int_equal(data.reused, reused[i]);
        assert_documents(&data, tok, &text, &n, 1);
        cv_text_data_close(&data);
    }
    cv_text_data data = open_data(other, &source, 1, cache, 0.0); /* another vocabulary */
    assert_false(data.reused);
    assert_documents(&data, other, &text, &n, 1);
    cv_text_data_close(&data);

    test_write_file(path, longer, n); /* same size, later */
    const struct timespec times[2] = { { 2000000000, 5 }, { 2000000000, 5 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    data = open_data(other, &source, 1, cache, 0.0);
    assert_false(data.reused);
    assert_documents(&data, other, &longer, &n, 1);
    cv_text_data_close(&data);

    size_t cache_n; /* damaged: made again */
    char *bytes = test_read_file(cache, &cache_n);
    bytes[70] ^= 1;
    test_write_file(cache, bytes, cache_n);
    free(bytes);
    data = open_data(other, &source, 1, cache, 0.0);
    assert_false(data.reused);
    assert_documents(&data, other, &longer, &n, 1);
    cv_text_data_close(&data);
    cv_tokenizer_free(other);
    cv_tokenizer_free(tok);
}

static void other_files_are_not_replaced(void **state)
{
    (void)state;
    char folder[512], path[2048], precious[2048];
    cv_tokenizer *tok = bytes_tokenizer();
    corvid_error err;
    size_t n;
    make_folder(folder, "foreign");
    put_file(folder, "a.txt", "text", path);
    put_file(folder, "thesis.txt", "precious", precious);
    assert_int_equal(try_data(tok, path, precious, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "will not be replaced"));
    char *bytes = test_read_file(precious, &n);
    assert_string_equal(bytes, "precious");
    free(bytes);
    cv_tokenizer_free(tok);
}

/* ---- refusals ------------------------------------------------------------------------------- */

typedef struct bad_lines {
    const char *text, *says;
} bad_lines;

static void bad_lines_are_named(void **state)
{
    (void)state;
    static const bad_lines cases[] = {
        { "{\"text\":\"a\"}\n{\"text\":\"b\"\n", "bad.jsonl: line 2: column" },
        { "\n\n{\"txt\":\"a\"}\n", "bad.jsonl: line 3: there is no field \"text\"" },
        { "{\"text\":7}", "bad.jsonl: line 1: the field \"text\" is not a string" },
        { "[\"text\"]", "bad.jsonl: line 1: there is no field \"text\"" },
        { "{\"text\":\"\xFF\"}", "bad.jsonl: line 1: column" },
        { "{\"text\":\"a\"} {\"text\":\"b\"}", "bad.jsonl: line 1: column" },
        { "{\"text\":\"\"}\n", "bad.jsonl: there is no text in it" },
    };
    cv_tokenizer *tok = bytes_tokenizer();
    corvid_error err;
    const char *path = test_scratch("bad.jsonl");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        test_write_file(path, cases[i].text, strlen(cases[i].text));
        const char *cache = test_scratch("bad-cache");
        const corvid_status status = try_data(tok, path, cache, &err);
        if (status != CORVID_E_FORMAT && status != CORVID_E_ARGUMENT)
            fail_msg("case %zu: status %d", i, (int)status);
        if (!strstr(err.text, cases[i].says))
            fail_msg("wanted \"%s\" in \"%s\"", cases[i].says, err.text);
        assert_int_equal(access(cache, F_OK), -1); /* no half of a cache is left */
    }
    cv_tokenizer_free(tok);
}

static void missing_texts(void **state)
{
    (void)state;
    char folder[512];
    cv_tokenizer *tok = bytes_tokenizer();
    corvid_error err;
    make_folder(folder, "nothing");
    assert_int_equal(try_data(tok, test_scratch("no-such.txt"), NULL, &err), CORVID_E_FILE);
    assert_non_null(strstr(err.text, "no-such.txt"));
    assert_int_equal(try_data(tok, folder, NULL, &err), CORVID_E_FILE);
    assert_non_null(strstr(err.text, "no .txt or .jsonl"));
    assert_int_equal(try_data(tok, "/dev/null", NULL, &err), CORVID_E_FILE);
    const cv_text_options options = { .tok = tok };
    cv_text_data data;
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_ARGUMENT);
    const cv_text_options all = { .tok = tok, .validation = (double)NAN };
    assert_int_equal(cv_text_data_open(mem, &all, &data, &err), CORVID_E_ARGUMENT);
    cv_tokenizer_free(tok);
}

/* A byte that the vocabulary lacks: which file, and where in it. */
static void missing_tokens(void **state)
{
    (void)state;
    static const char vocabulary[] = "1 'a' 1\n2 'é' 2\n";
    cv_tokenizer *tok = NULL;
    corvid_error err;
    const size_t n = 3000001;
    ASSERT_OK(cv_tokenizer_parse(mem, vocabulary, strlen(vocabulary), "v", &tok, &err), &err);
    char *text = malloc(n);
    assert_non_null(text);
    text[0] = 'a'; /* then characters of two bytes: pieces end in the middle of one */
    for (size_t i = 1; i < n; i += 2)
        memcpy(text + i, "é", 2);
    cv_text_source source = { .path = "letters", .bytes = text, .n = n };
    cv_text_data data = open_data(tok, &source, 1, NULL, 0.0);
    assert_int_equal(data.cache.n_tokens, 1500001);
    cv_text_data_close(&data);
    text[0] = 'b';
    const cv_text_options options = { .sources = &source, .n_sources = 1, .tok = tok };
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "letters: after byte 0: byte 0x62 at offset 0"));
    free(text);
    cv_tokenizer_free(tok);
}

typedef struct watch {
    uint64_t last, total;
    size_t calls, cancel_at;
} watch;

static void see_progress(void *ctx, uint64_t done, uint64_t total)
{
    watch *w = ctx;
    assert_true(done > w->last && done <= total);
    w->last = done;
    w->total = total;
}

static int maybe_cancel(void *ctx)
{
    watch *w = ctx;
    return ++w->calls == w->cancel_at;
}

static void progress_and_cancel(void **state)
{
    (void)state;
    const size_t n = (size_t)3 << 20;
    char *text = long_text(n, 3, false);
    cv_tokenizer *tok = bytes_tokenizer();
    const cv_text_source source = { .bytes = text, .n = n };
    watch w = { .cancel_at = 0 };
    cv_text_options options = { .sources = &source,
                                .n_sources = 1,
                                .tok = tok,
                                .progress = see_progress,
                                .cancel = maybe_cancel,
                                .ctx = &w };
    cv_text_data data;
    corvid_error err;
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    assert_int_equal(w.last, n);
    assert_int_equal(w.total, n);
    cv_text_data_close(&data);
    w = (watch){ .cancel_at = 2 };
    options.cache = test_scratch("cancelled");
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_CANCELLED);
    assert_true(w.last < n);
    assert_int_equal(access(options.cache, F_OK), -1);
    cv_tokenizer_free(tok);
    free(text);
}

static void every_allocation_fails_once(void **state)
{
    (void)state;
    char folder[512], path[2048];
    cv_tokenizer *tok = overlapping_tokenizer();
    make_folder(folder, "failing");
    put_file(folder, "a.txt", "abcabcabd then the end", path);
    put_file(folder, "b.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"more\"}\n", path);
    const cv_text_source sources[] = { { .path = folder }, { .bytes = "x", .n = 1 } };
    cv_text_options options = { .sources = sources, .n_sources = 2, .tok = tok };
    for (size_t kind = 0; kind < 3; kind++) { /* in memory, to a file, from it */
        if (kind == 1) options.cache = test_scratch("failing-cache");
        for (size_t nth = 1;; nth++) {
            test_allocator a;
            cv_text_data data;
            corvid_error err;
            test_allocator_init(&a);
            a.fail_at = nth;
            if (kind == 1) unlink(options.cache);
            const corvid_status status = cv_text_data_open(&a.api, &options, &data, &err);
            if (status == CORVID_OK) assert_int_equal(data.reused, kind == 2);
            cv_text_data_close(&data);
            assert_int_equal(a.live, 0);
            if (status == CORVID_OK) {
                assert_true(nth > a.calls && nth > 4);
                break;
            }
            assert_int_equal(status, CORVID_E_MEMORY);
        }
    }
    cv_tokenizer_free(tok);
}

/* ---- the split ------------------------------------------------------------------------------ */

static void splits_as_nanogpt(void **state)
{
    (void)state;
    NEED_DATA(path, "text/tinyshakespeare/input.txt");
    cv_tokenizer *tok = bytes_tokenizer();
    const cv_text_source source = { .path = path };
    cv_text_data data = open_data(tok, &source, 1, NULL, 0.1);
    assert_int_equal(data.train.begin, 0);
    assert_int_equal(data.train.end, 1003854);
    assert_int_equal(data.validation.begin, 1003854);
    assert_int_equal(data.validation.end, 1115394);
    cv_text_data_close(&data);
    cv_tokenizer_free(tok);
}

static void splits_by_documents(void **state)
{
    (void)state;
    cv_tokenizer *tok = bytes_tokenizer();
    cv_text_source sources[10];
    for (size_t i = 0; i < 10; i++)
        sources[i] = (cv_text_source){ .bytes = "nine byte", .n = 9 };
    cv_text_data data = open_data(tok, sources, 10, NULL, 0.25); /* 99 tokens: the last two */
    assert_int_equal(data.train.end, 80);
    assert_int_equal(data.validation.end, 99);
    cv_text_data_close(&data);
    data = open_data(tok, sources, 10, NULL, 0.05); /* no whole document */
    assert_int_equal(data.train.end, 94);
    cv_text_data_close(&data);
    sources[9].n = 1; /* a last document that is much too small */
    data = open_data(tok, sources, 10, NULL, 0.1);
    assert_int_equal(data.cache.n_tokens, 91);
    assert_int_equal(data.train.end, 81);
    cv_text_data_close(&data);
    cv_tokenizer_free(tok);
}

/* ---- samples -------------------------------------------------------------------------------- */

/* Token i of this text is known: the low byte of its square's middle. */
static cv_text_data counted_data(size_t n, const char *cache, size_t memory_limit)
{
    cv_tokenizer *tok = bytes_tokenizer();
    char *text = malloc(n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++)
        text[i] = (char)(unsigned char)(i * i >> 4);
    const cv_text_source source = { .bytes = text, .n = n };
    const cv_text_options options = {
        .sources = &source, .n_sources = 1, .tok = tok, .cache = cache, .memory_limit = memory_limit
    };
    cv_text_data data;
    corvid_error err;
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    free(text);
    cv_tokenizer_free(tok);
    return data;
}

static int32_t counted(uint64_t i)
{
    return (int32_t)(i * i >> 4 & 0xFF);
}

static void random_samples(void **state)
{
    (void)state;
    enum { N = 10000, T = 17, B = 6 };
    const cv_token_range range = { 1000, 1000 + 90 };
    cv_text_data in_memory = counted_data(N, NULL, 0);
    cv_text_data in_file = counted_data(N, test_scratch("samples"), 1);
    cv_text_data loaded = counted_data(N, test_scratch("samples"), 0);
    assert_null(in_file.cache.ids);
    assert_non_null(loaded.cache.ids);
    cv_sample_plan s, other;
    corvid_error err;
    ASSERT_OK(cv_sample_plan_init(&s, range, CV_SAMPLES_RANDOM, T, B, 42, &err), &err);
    ASSERT_OK(cv_sample_plan_init(&other, range, CV_SAMPLES_RANDOM, T, 100, 43, &err), &err);
    assert_int_equal(s.windows, 73); /* offsets 0 to 72: the last target is the range's last */
    size_t seen[73] = { 0 }, same = 0;
    for (uint64_t step = 0; step < 2000; step++) {
        int32_t tokens[B * T], targets[B * T], again[B * T], others[B * T];
        ASSERT_OK(cv_text_batch(&in_memory, &s, step, 0, B, tokens, targets, &err), &err);
        for (size_t b = 0; b < B; b++) {
            const uint64_t offset = cv_sample_offset(&s, step, b);
            assert_in_range(offset, 1000, 1072);
            seen[offset - 1000]++;
            same += offset == cv_sample_offset(&other, step, b);
            for (size_t t = 0; t < T; t++) {
                assert_int_equal(tokens[b * T + t], counted(offset + t));
                assert_int_equal(targets[b * T + t], counted(offset + t + 1));
            }
        }
        if (step % 100 != 0) continue;
        /* Rows one by one, from the file: nothing is remembered. */
        for (size_t b = B; b-- > 0;)
            ASSERT_OK(cv_text_batch(&in_file, &s, step, b, 1, again + b * T, others + b * T, &err),
                      &err);
        assert_memory_equal(again, tokens, sizeof tokens);
        assert_memory_equal(others, targets, sizeof targets);
        ASSERT_OK(cv_text_batch(&loaded, &s, step, 0, B, again, others, &err), &err);
        assert_memory_equal(again, tokens, sizeof tokens);
    }
    for (size_t i = 0; i < 73; i++) /* 12000 / 73 = 164, deviation 13 */
        assert_in_range(seen[i], 164 - 65, 164 + 65);
    assert_in_range(same, 164 - 65, 164 + 65); /* another seed: other samples */
    cv_text_data_close(&in_memory);
    cv_text_data_close(&in_file);
    cv_text_data_close(&loaded);
}

static bool slow_is_prime(uint64_t n)
{
    for (uint64_t d = 2; d * d <= n; d++)
        if (n % d == 0) return false;
    return n > 1;
}

static void magic_primes(void **state)
{
    (void)state;
    /* The official training script's data set and its prime. */
    assert_int_equal(cv_magic_prime(1498226207, 512), 2926181);
    for (uint64_t n = 0; n < 3000; n++) {
        uint64_t want = n / 3 > 0 ? n / 3 - 1 : 0;
        while (want > 0 && !(want % 3 == 2 && slow_is_prime(want)))
            want--;
        assert_int_equal(cv_magic_prime(n, 3), want);
    }
    assert_true(cv_magic_prime(UINT64_MAX, 1) > UINT64_MAX - 1000);
}

static void magic_order(void **state)
{
    (void)state;
    enum { N = 5000, T = 8, B = 5 };
    cv_text_data data = counted_data(N, NULL, 0);
    cv_sample_plan s;
    corvid_error err;
    ASSERT_OK(cv_sample_plan_init(&s, data.train, CV_SAMPLES_MAGIC, T, B, 0, &err), &err);
    assert_int_equal(s.prime, 617); /* at most 5000 / 8 - 1 = 624 */
    size_t seen[617] = { 0 };
    const uint64_t factor = 381; /* 617 * 0.618... */
    for (uint64_t number = 0; number < 617 * 3; number++) {
        const uint64_t offset = cv_sample_offset(&s, number / B, (size_t)(number % B));
        const uint64_t ii = number + 1;
        assert_int_equal(offset, T * (factor * ii * ii * ii % 617));
        seen[offset / T]++;
    }
    for (size_t i = 0; i < 617; i++)
        assert_int_equal(seen[i], 3);
    int32_t tokens[B * T], targets[B * T];
    for (uint64_t step = 0; step < 300; step++) {
        ASSERT_OK(cv_text_batch(&data, &s, step, 0, B, tokens, targets, &err), &err);
        for (size_t i = 0; i < B * T; i++) {
            const uint64_t at = cv_sample_offset(&s, step, i / T) + i % T;
            assert_int_equal(tokens[i], counted(at));
            assert_int_equal(targets[i], counted(at + 1));
        }
    }
    cv_text_data_close(&data);
}

static void sequential_windows(void **state)
{
    (void)state;
    enum { T = 7, B = 4 };
    cv_text_data data = counted_data(1000, NULL, 0);
    for (uint64_t n = 2; n < 60; n++) {
        const cv_token_range range = { 900, 900 + n };
        cv_sample_plan s;
        corvid_error err;
        ASSERT_OK(cv_sample_plan_init(&s, range, CV_SAMPLES_SEQUENTIAL, T, B, 0, &err), &err);
        uint64_t next = 900;
        for (uint64_t step = 0; step * B < s.windows; step++) {
            int32_t tokens[B * T], targets[B * T];
            ASSERT_OK(cv_text_batch(&data, &s, step, 0, B, tokens, targets, &err), &err);
            for (size_t i = 0; i < B * T; i++) {
                if (next + 1 < range.end) { /* each token but the first is a target, once */
                    assert_int_equal(tokens[i], counted(next));
                    assert_int_equal(targets[i], counted(next + 1));
                    next++;
                } else {
                    assert_int_equal(tokens[i], 0);
                    assert_int_equal(targets[i], -1);
                }
            }
        }
        assert_int_equal(next + 1, range.end);
    }
    cv_text_data_close(&data);
}

static void too_short_for_samples(void **state)
{
    (void)state;
    const cv_token_range ten = { 5, 15 }, none = { 5, 5 };
    cv_sample_plan s;
    corvid_error err;
    ASSERT_OK(cv_sample_plan_init(&s, ten, CV_SAMPLES_RANDOM, 9, 1, 0, &err), &err);
    assert_int_equal(cv_sample_offset(&s, 3, 0), 5);
    assert_int_equal(cv_sample_plan_init(&s, ten, CV_SAMPLES_RANDOM, 10, 1, 0, &err),
                     CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "10 tokens, expected at least 11"));
    ASSERT_OK(cv_sample_plan_init(&s, ten, CV_SAMPLES_MAGIC, 3, 1, 0, &err), &err);
    assert_int_equal(cv_sample_plan_init(&s, ten, CV_SAMPLES_MAGIC, 4, 1, 0, &err),
                     CORVID_E_ARGUMENT);
    assert_int_equal(cv_sample_plan_init(&s, none, CV_SAMPLES_SEQUENTIAL, 4, 1, 0, &err),
                     CORVID_E_ARGUMENT);
    assert_int_equal(cv_sample_plan_init(&s, ten, CV_SAMPLES_RANDOM, 0, 1, 0, &err),
                     CORVID_E_ARGUMENT);
}

/* ---- standard input ------------------------------------------------------------------------- */

static void see_unknown_total(void *ctx, uint64_t done, uint64_t total)
{
    uint64_t *last = ctx;
    assert_true(done > *last);
    assert_int_equal(total, 0);
    *last = done;
}

/* The tokens, and the words cut at pieces, are those of a file with this text. */
static void standard_input_is_a_text(void **state)
{
    (void)state;
    const size_t n = ((size_t)1 << 20) * 2 + 54321;
    char *text = long_text(n, 5, true);
    cv_tokenizer *tok = overlapping_tokenizer();
    static const cv_text_source sources[] = { { .path = "-" }, { .bytes = "then", .n = 4 } };
    const char *texts[] = { text, "then" };
    const size_t lengths[] = { n, 4 };
    uint64_t seen = 0;
    const cv_text_options options = {
        .sources = sources, .n_sources = 2, .tok = tok, .progress = see_unknown_total, .ctx = &seen
    };
    cv_text_data data;
    corvid_error err;
    const pid_t writer = begin_input(text, n);
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    assert_int_equal(end_input(writer), 0);
    assert_documents(&data, tok, texts, lengths, 2);
    assert_int_equal(data.cache.source_bytes, n + 4);
    assert_int_equal(seen, n + 4);
    cv_text_data_close(&data);
    cv_tokenizer_free(tok);
    free(text);
}

/* A cache stands for what was piped in, where a run goes on, and is never lost to another text. */
static void standard_input_is_read_once(void **state)
{
    (void)state;
    static const char *text = "from the pipe, once", *other = "another text";
    const size_t n = strlen(text), other_n = strlen(other);
    cv_tokenizer *tok = bytes_tokenizer(), *other_tok = overlapping_tokenizer();
    static const cv_text_source source = { .path = "-" };
    const char *cache = test_scratch("piped-cache");
    cv_text_options options = {
        .sources = &source, .n_sources = 1, .tok = tok, .cache = cache, .resume = true
    };
    cv_text_data data;
    corvid_error err;
    pid_t writer = begin_input(text, n);
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err); /* no cache yet: it is read */
    assert_int_equal(end_input(writer), 0);
    assert_false(data.reused);
    cv_text_data_close(&data);

    writer = begin_input(other, other_n);
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    assert_true(data.reused);
    assert_documents(&data, tok, &text, &n, 1);
    cv_text_data_close(&data);
    options.tok = other_tok;
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_MISMATCH);
    options.tok = tok;
    options.resume = false;
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "piped-cache: is there from another run"));
    assert_int_equal(end_input(writer), other_n); /* all that time nothing was read */

    options.resume = true;
    ASSERT_OK(cv_text_data_open(mem, &options, &data, &err), &err);
    assert_documents(&data, tok, &text, &n, 1);
    cv_text_data_close(&data);
    size_t cache_n;
    char *bytes = test_read_file(cache, &cache_n);
    bytes[70] ^= 1;
    test_write_file(cache, bytes, cache_n);
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_FORMAT);
    free(bytes);
    cv_tokenizer_free(other_tok);
    cv_tokenizer_free(tok);
}

static void standard_input_refused(void **state)
{
    (void)state;
    static const cv_text_source twice[] = { { .path = "-" }, { .path = "-" } };
    cv_tokenizer *tok = bytes_tokenizer();
    cv_text_options options = { .sources = twice, .n_sources = 2, .tok = tok };
    cv_text_data data;
    corvid_error err;
    assert_int_equal(cv_text_data_open(mem, &options, &data, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "given twice"));
    const pid_t writer = begin_input("", 0);
    assert_int_equal(try_data(tok, "-", NULL, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "standard input: there is no text in it"));
    assert_int_equal(end_input(writer), 0);
    close(STDIN_FILENO);
    assert_int_equal(try_data(tok, "-", NULL, &err), CORVID_E_FILE);
    assert_non_null(strstr(err.text, "standard input: cannot be read after 0 bytes"));
    assert_int_equal(open("/dev/null", O_RDONLY), STDIN_FILENO);
    cv_tokenizer_free(tok);
}

/* ---- data sets of tokens -------------------------------------------------------------------- */

static void put_set(const char *folder, const char *name, const set_bytes *set, char path[2048])
{
    snprintf(path, 2048, "%s/%s.idx", folder, name);
    test_write_file(path, set->index, set->index_n);
    snprintf(path, 2048, "%s/%s.bin", folder, name);
    test_write_file(path, set->tokens, set->tokens_n);
}

static void assert_ids(const cv_text_data *data, const int64_t *want, size_t n)
{
    corvid_error err;
    assert_int_equal(data->cache.n_tokens, n);
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        ASSERT_OK(cv_token_cache_read(&data->cache, i, 1, &id, &err), &err);
        assert_int_equal(id, want[i]);
    }
}

/* Documents that end with token 0, as the official tools write them: the same stream of tokens. */
static void token_sets(void **state)
{
    (void)state;
    enum { N = 10000 };
    static int64_t tokens[N + 3];
    static const int32_t lengths[] = { 4096, 1, 1, 0, 902, 5000 };
    static const int64_t first[] = { 0, 1, 2, 3, 4 }; /* the last document has two sequences */
    static const uint64_t starts[] = { 0, 4096, 4097, 4098 };
    static const size_t ends[] = { 4095, 4096, 4097, 9999 };
    char folder[512], path[2048], cache[2048];
    cv_tokenizer *tok = overlapping_tokenizer(); /* 265 ids */
    make_folder(folder, "sets");
    for (size_t i = 0; i < N; i++)
        tokens[i] = 1 + (int64_t)(i * i % 264);
    for (size_t i = 0; i < 4; i++)
        tokens[ends[i]] = 0;
    set_bytes set = set_make(SET_UINT16, tokens, lengths, 6, first, 5);
    put_set(folder, "a", &set, path);
    snprintf(cache, sizeof cache, "%s/cache", folder);
    cv_text_source sources[] = { { .path = path }, { .bytes = "a", .n = 1 } };
    cv_text_data data = open_data(tok, sources, 1, cache, 0.0);
    assert_ids(&data, tokens, N);
    assert_int_equal(data.cache.n_documents, 4);
    assert_int_equal(data.cache.source_bytes, 2 * N);
    assert_memory_equal(data.cache.starts, starts, sizeof starts);
    cv_text_data_close(&data);

    snprintf(path, sizeof path, "%s/a.idx", folder); /* by its other name */
    data = open_data(tok, sources, 1, cache, 0.0);
    assert_true(data.reused);
    cv_text_data_close(&data);
    const struct timespec times[2] = { { 2000000000, 5 }, { 2000000000, 5 } };
    assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    data = open_data(tok, sources, 1, cache, 0.0); /* another index */
    assert_false(data.reused);
    cv_text_data_close(&data);
    data = open_data(tok, sources, 2, cache, 0.0); /* a text behind it */
    tokens[N] = 'a' + 1;
    assert_ids(&data, tokens, N + 1);
    cv_text_data_close(&data);
    set_free(&set);

    tokens[0] = 7; /* no separators: one is put between, as between texts */
    tokens[1] = 8;
    tokens[2] = 9;
    static const int32_t two[] = { 1, 2 };
    static const int64_t with_one[] = { 7, 0, 8, 9, 0, 'a' + 1 };
    set = set_make(SET_INT32, tokens, two, 2, first, 2);
    put_set(folder, "b", &set, path);
    data = open_data(tok, sources, 2, NULL, 0.0);
    assert_ids(&data, with_one, 6);
    cv_text_data_close(&data);
    set_free(&set);
    cv_tokenizer_free(tok);
}

static void token_sets_refused(void **state)
{
    (void)state;
    static const int64_t tokens[] = { 5, 264, 265, 0 }, first[] = { 0 };
    static const int32_t length = 4;
    char folder[512], path[2048];
    corvid_error err;
    cv_tokenizer *tok = overlapping_tokenizer();
    make_folder(folder, "bad-sets");
    set_bytes set = set_make(SET_UINT16, tokens, &length, 1, first, 1);
    put_set(folder, "a", &set, path);
    const char *cache = test_scratch("bad-set-cache");
    assert_int_equal(try_data(tok, path, cache, &err), CORVID_E_MISMATCH);
    assert_non_null(strstr(err.text, "a.bin: token 2 (offset 4) has the id 265"));
    assert_int_equal(access(cache, F_OK), -1);
    put_file(folder, "alone.bin", "text", path);
    assert_int_equal(try_data(tok, path, NULL, &err), CORVID_E_FILE);
    assert_non_null(strstr(err.text, "alone.idx: is not there"));
    assert_int_equal(try_data(tok, folder, NULL, &err), CORVID_E_FILE); /* folders are of texts */
    set_free(&set);
    set = set_make(SET_UINT16, tokens, NULL, 0, NULL, 0);
    put_set(folder, "none", &set, path);
    assert_int_equal(try_data(tok, path, NULL, &err), CORVID_E_ARGUMENT);
    assert_non_null(strstr(err.text, "none.bin: there is no text in it"));
    set_free(&set);
    cv_tokenizer_free(tok);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_do_not_show),
        cmocka_unit_test(cuts_do_not_show_to_bpe),
        cmocka_unit_test(folders_and_lines),
        cmocka_unit_test(long_lines),
        cmocka_unit_test(cache_is_used_again),
        cmocka_unit_test(other_files_are_not_replaced),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(missing_texts),
        cmocka_unit_test(missing_tokens),
        cmocka_unit_test(progress_and_cancel),
        cmocka_unit_test(every_allocation_fails_once),
        cmocka_unit_test(splits_as_nanogpt),
        cmocka_unit_test(splits_by_documents),
        cmocka_unit_test(random_samples),
        cmocka_unit_test(magic_primes),
        cmocka_unit_test(magic_order),
        cmocka_unit_test(sequential_windows),
        cmocka_unit_test(too_short_for_samples),
        cmocka_unit_test(standard_input_is_a_text),
        cmocka_unit_test(standard_input_is_read_once),
        cmocka_unit_test(standard_input_refused),
        cmocka_unit_test(token_sets),
        cmocka_unit_test(token_sets_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

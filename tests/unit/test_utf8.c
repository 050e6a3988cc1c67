/* test_utf8.c - validity, repair and the incomplete tail, against tables of all code points. */
#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/rng.h"
#include "text/utf8.h"

/* begins[k] has a bit for each string of k bytes that is a proper beginning of a character. */
static unsigned char begins_1[256], begins_2[65536], *begins_3;

static void fill_tables(void)
{
    begins_3 = calloc((size_t)1 << 24, 1);
    assert_non_null(begins_3);
    for (utf8proc_int32_t c = 0x80; c < 0x110000; c++) {
        unsigned char b[4];
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        const utf8proc_ssize_t n = utf8proc_encode_char(c, b);
        begins_1[b[0]] = 1;
        if (n > 2) begins_2[b[0] << 8 | b[1]] = 1;
        if (n > 3) begins_3[(size_t)b[0] << 16 | (size_t)b[1] << 8 | b[2]] = 1;
    }
}

static size_t expected_complete(const unsigned char *b, size_t n)
{
    if (n >= 1 && begins_1[b[n - 1]]) return n - 1;
    if (n >= 2 && begins_2[b[n - 2] << 8 | b[n - 1]]) return n - 2;
    if (n >= 3 && begins_3[(size_t)b[n - 3] << 16 | (size_t)b[n - 2] << 8 | b[n - 1]]) return n - 3;
    return n;
}

static bool expected_valid(const unsigned char *b, size_t n)
{
    for (size_t i = 0; i < n;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t length = utf8proc_iterate(b + i, (utf8proc_ssize_t)(n - i), &c);
        if (length <= 0) return false;
        i += (size_t)length;
    }
    return true;
}

/* Bytes that lie near the borders of what is allowed more often than chance would have it. */
static void random_bytes(cv_rng *rng, unsigned char *b, size_t n)
{
    static const unsigned char edge[] = { 0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF,
                                          0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xEC, 0xED, 0xEE,
                                          0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFE, 0xFF };
    for (size_t i = 0; i < n; i++) {
        const uint64_t r = cv_rng_next(rng);
        b[i] = r & 1 ? edge[(r >> 8) % sizeof edge] : (unsigned char)(r >> 16);
    }
}

static void every_character_is_valid(void **state)
{
    (void)state;
    for (utf8proc_int32_t c = 0; c < 0x110000; c++) {
        char b[4];
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        const size_t n = (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)b);
        if (!cv_utf8_valid(b, n)) fail_msg("U+%04X is called invalid", (unsigned)c);
        if (cv_utf8_complete(b, n) != n) fail_msg("U+%04X is called incomplete", (unsigned)c);
        for (size_t k = 1; k < n; k++) {
            if (cv_utf8_valid(b, k))
                fail_msg("%zu bytes of U+%04X are called valid", k, (unsigned)c);
            if (cv_utf8_complete(b, k) != 0) fail_msg("%zu bytes of U+%04X", k, (unsigned)c);
        }
    }
}

static void strange_forms_are_invalid(void **state)
{
    (void)state;
    static const char *const bad[] = { "\xC0\x80",
                                       "\xC1\xBF",
                                       "\xE0\x80\x80",
                                       "\xE0\x9F\xBF",
                                       "\xED\xA0\x80",
                                       "\xED\xBF\xBF",
                                       "\xF0\x80\x80\x80",
                                       "\xF0\x8F\xBF\xBF",
                                       "\xF4\x90\x80\x80",
                                       "\xF5\x80\x80\x80",
                                       "\x80",
                                       "\xFF" };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_false(cv_utf8_valid(bad[i], strlen(bad[i])));
        assert_int_equal(cv_utf8_complete(bad[i], strlen(bad[i])), strlen(bad[i]));
    }
    assert_true(cv_utf8_valid("", 0));
    assert_int_equal(cv_utf8_complete("", 0), 0);
    assert_int_equal(cv_utf8_complete("ok\xF0\x9F\x98", 5), 2);
    assert_int_equal(cv_utf8_complete("ok\xED\xA0", 4), 4);
}

static void random_bytes_agree_with_the_tables(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 5);
    for (int round = 0; round < 300000; round++) {
        unsigned char b[24];
        const size_t n = (size_t)(cv_rng_next(&rng) % sizeof b);
        random_bytes(&rng, b, n);
        assert_int_equal(cv_utf8_valid((char *)b, n), expected_valid(b, n));
        assert_int_equal(cv_utf8_complete((char *)b, n), expected_complete(b, n));
    }
}

static void one_bad_byte_is_found_anywhere(void **state)
{
    (void)state;
    char text[64];
    for (size_t n = 1; n <= sizeof text; n++)
        for (size_t i = 0; i < n; i++) {
            memset(text, 'a', sizeof text);
            assert_true(cv_utf8_valid(text, n));
            text[i] = (char)0xFF;
            assert_false(cv_utf8_valid(text, n));
        }
}

/* Repaired text is valid, valid text is unchanged, and each bad byte has become one character. */
static void repair_replaces_each_bad_byte(void **state)
{
    (void)state;
    cv_rng rng;
    cv_rng_seed(&rng, 6);
    for (int round = 0; round < 100000; round++) {
        unsigned char b[20];
        char out[60], expected[60];
        const size_t n = (size_t)(cv_rng_next(&rng) % (sizeof b + 1));
        size_t m = 0;
        random_bytes(&rng, b, n);
        for (size_t i = 0; i < n;) {
            utf8proc_int32_t c;
            utf8proc_ssize_t length = utf8proc_iterate(b + i, (utf8proc_ssize_t)(n - i), &c);
            if (length <= 0) {
                c = 0xFFFD;
                length = 1;
            }
            m += (size_t)utf8proc_encode_char(c, (utf8proc_uint8_t *)expected + m);
            i += (size_t)length;
        }
        assert_int_equal(cv_utf8_repair((char *)b, n, out), m);
        assert_memory_equal(out, expected, m);
        assert_true(cv_utf8_valid(out, m));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_character_is_valid),
        cmocka_unit_test(strange_forms_are_invalid),
        cmocka_unit_test(random_bytes_agree_with_the_tables),
        cmocka_unit_test(one_bad_byte_is_found_anywhere),
        cmocka_unit_test(repair_replaces_each_bad_byte),
    };
    fill_tables();
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    free(begins_3);
    return failed;
}

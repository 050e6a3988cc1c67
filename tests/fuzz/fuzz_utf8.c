/* fuzz_utf8.c - any bytes as text: what must hold between validity, repair and the complete part. */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "text/utf8.h"
#include "text/words.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

/* Words cover the text, and its normal form is that of the library that knows all of Unicode. */
static void check_text(const char *text, size_t n)
{
    const char *out;
    size_t out_n;
    char *owned;
    utf8proc_uint8_t *normal = NULL;
    for (size_t i = 0; i < n;) {
        const size_t length = cv_word_length(text + i, n - i);
        check(length > 0 && length <= n - i && cv_utf8_valid(text + i, length));
        i += length;
    }
    check(cv_nfc(&cv_libc_allocator, text, n, &out, &out_n, &owned, NULL) == CORVID_OK);
    const utf8proc_ssize_t length =
        utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)n, &normal,
                     (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
    check(length >= 0 && (size_t)length == out_n && memcmp(out, normal, out_n) == 0);
    free(normal);
    cv_free(&cv_libc_allocator, owned);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 4096) return 0;
    const char *text = (const char *)data;
    const size_t complete = cv_utf8_complete(text, size);
    check(complete <= size && size - complete <= 3);
    check(complete == size || !cv_utf8_valid(text, size));

    char *repaired = malloc(3 * size + 1);
    check(repaired != NULL);
    const size_t n = cv_utf8_repair(text, size, repaired);
    check(n >= size && n <= 3 * size && cv_utf8_valid(repaired, n));
    check(cv_utf8_complete(repaired, n) == n);
    check(cv_utf8_valid(text, size) == (n == size && memcmp(text, repaired, n) == 0));
    if (n > 0) check_text(repaired, n);
    free(repaired);
    return 0;
}

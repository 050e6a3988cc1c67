/* fuzz_world.c - any bytes as a vocabulary file; what is accepted encodes the file itself. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

/* Each token has an encoding, as long as it, whose first id is the token's own: nothing is longer
 * than the whole. */
static void encode_tokens(const cv_tokenizer *tok)
{
    for (size_t id = 0; id < cv_tokenizer_size(tok); id++) {
        size_t n, count;
        int32_t *ids;
        const char *piece = cv_tokenizer_piece(tok, (int32_t)id, &n);
        if (n == 0) continue;
        check(cv_tokenizer_encode(tok, &cv_libc_allocator, piece, n, &ids, &count, NULL) ==
              CORVID_OK);
        check(count == 1 && ids[0] == (int32_t)id);
        cv_free(&cv_libc_allocator, ids);
    }
}

static void encode_text(const cv_tokenizer *tok, const char *text, size_t n)
{
    int32_t *ids;
    size_t count, at = 0;
    corvid_error err;
    const corvid_status status =
        cv_tokenizer_encode(tok, &cv_libc_allocator, text, n, &ids, &count, &err);
    check(status == CORVID_OK || status == CORVID_E_ARGUMENT);
    if (status != CORVID_OK) return; /* a byte has no token */
    for (size_t i = 0; i < count; i++) {
        size_t length;
        const char *piece = cv_tokenizer_piece(tok, ids[i], &length);
        check(length > 0 && length <= n - at && memcmp(text + at, piece, length) == 0);
        at += length;
    }
    check(at == n);
    cv_free(&cv_libc_allocator, ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cv_tokenizer *tok;
    corvid_error err = { CORVID_OK, "" };
    const char *text = (const char *)data;
    const corvid_status status =
        cv_tokenizer_world(&cv_libc_allocator, text, size, "fuzz.txt", &tok, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_FORMAT && err.status == status && tok == NULL);
        check(strstr(err.text, "line ") && cv_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    if (cv_tokenizer_size(tok) < 10000) encode_tokens(tok);
    encode_text(tok, text, size);
    cv_tokenizer_free(tok);
    return 0;
}

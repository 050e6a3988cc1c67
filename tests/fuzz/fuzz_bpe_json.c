/* fuzz_bpe_json.c - any bytes as a tokenizer.json; what is accepted encodes the file itself. */
#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"
#include "text/utf8.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cv_tokenizer *tok;
    corvid_error err = { CORVID_OK, "" };
    const char *text = (const char *)data;
    int32_t *ids;
    size_t count;
    const corvid_status status =
        cv_tokenizer_bpe(&cv_libc_allocator, text, size, "fuzz.json", &tok, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_FORMAT && err.status == status && tok == NULL);
        check(strncmp(err.text, "fuzz.json: ", 11) == 0);
        check(cv_utf8_valid(err.text, strlen(err.text)));
        return 0;
    }
    check(cv_tokenizer_encode(tok, &cv_libc_allocator, text, size, &ids, &count, &err) ==
          CORVID_OK);
    for (size_t i = 0; i < count; i++) {
        size_t length;
        (void)cv_tokenizer_piece(tok, ids[i], &length);
        check(ids[i] >= 0 && (size_t)ids[i] < cv_tokenizer_size(tok) && length > 0);
    }
    cv_free(&cv_libc_allocator, ids);
    cv_tokenizer_free(tok);
    return 0;
}

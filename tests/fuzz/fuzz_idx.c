/* fuzz_idx.c - any bytes as an IDX file.
 *
 * The first byte says how many dimensions are wanted (its second bit: 3, else 1); the rest is the
 * file.  Findings beyond those of the sanitizers: a refusal without a sentence, and pixels that are
 * not all of the file. */
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "train/picture_raw.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    corvid_error err = { .status = CORVID_OK };
    const size_t dims = data[0] & 2 ? 3 : 1, n = size - 1, head = 4 + 4 * dims;
    unsigned char *file = malloc(n > 0 ? n : 1);
    cv_idx idx;
    check(file != NULL);
    memcpy(file, data + 1, n);
    const corvid_status status = cv_idx_parse(file, n, "fuzz", dims, &idx, &err);
    if (status == CORVID_OK) {
        size_t sum = 0;
        check(idx.data == file + head && idx.rows >= 1 && idx.columns >= 1);
        for (size_t i = 0; i < idx.n; i++)
            for (size_t p = 0; p < idx.rows * idx.columns; p++)
                sum += idx.data[i * idx.rows * idx.columns + p];
        check(sum <= 255 * (n - head) && idx.n * idx.rows * idx.columns == n - head);
    } else {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
    }
    free(file);
    return 0;
}

/* fuzz_rwkvcpp.c - any bytes as an rwkv.cpp file; what is accepted is read.
 *
 * Findings beyond those of the sanitizers: a tensor that cannot be read although the file was
 * accepted, and bytes of the file that belong to no tensor. */
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LARGEST_BLOCK 256 /* bytes; that of Q6_K has 210 */

static void check(bool holds)
{
    if (!holds) abort();
}

/* The bytes of a tensor with its header, after reading its first and last block. */
static uint64_t read_tensor(const cv_checkpoint *ckpt, const cv_tensor *t)
{
    const size_t block = cv_dtype_of(t->dtype)->block;
    unsigned char raw[LARGEST_BLOCK];
    size_t bytes;
    check(cv_dtype_of(t->dtype)->block_bytes <= sizeof raw);
    check(cv_checkpoint_find(ckpt, t->name) == t);
    check(t->n_dims >= 1 && t->n_dims <= 3 && t->count >= block);
    check(cv_dtype_bytes(t->dtype, t->count, &bytes));
    check(cv_tensor_read(ckpt, t, 0, block, raw, NULL) == CORVID_OK);
    check(cv_tensor_read(ckpt, t, t->count - block, block, raw, NULL) == CORVID_OK);
    return 12 + 4 * (uint64_t)t->n_dims + strlen(t->name) + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cv_input in;
    cv_checkpoint ckpt;
    corvid_error err = { CORVID_OK, "" };
    if (size < 4 || memcmp(data, "fmgg", 4) != 0) return 0; /* another target's */
    cv_input_memory(&in, data, size, "fuzz");
    corvid_status status = cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
        return 0;
    }
    uint64_t total = 24;
    for (size_t i = 0; i < ckpt.n_tensors; i++)
        total += read_tensor(&ckpt, &ckpt.tensors[i]);
    check(total == size);
    cv_checkpoint_close(&ckpt);
    return 0;
}

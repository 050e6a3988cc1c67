/* fuzz_gguf.c - any bytes as a GGUF file; what is accepted is read, written again and read back.
 *
 * Findings beyond those of the sanitizers: a tensor whose data cannot be read although the file was
 * accepted, and a header of ours that we refuse. */
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "formats/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MAX_AGAIN ((uint64_t)1 << 22) /* files beyond are read, but not written again */

static void check(bool holds)
{
    if (!holds) abort();
}

/* Every byte of every value, so that a sanitizer sees them. */
static unsigned touch_meta(const cv_checkpoint *ckpt)
{
    unsigned sum = 0;
    for (size_t i = 0; i < ckpt->n_meta; i++) {
        const cv_meta *meta = &ckpt->meta[i];
        check(cv_checkpoint_meta(ckpt, meta->key) == meta);
        for (size_t j = 0; meta->type == CV_META_TEXT && j <= meta->text.n; j++)
            sum += (unsigned char)meta->text.bytes[j];
        for (size_t j = 0; j < meta->count; j++) {
            if (meta->integers) sum += (unsigned)meta->integers[j];
            if (meta->numbers) sum += meta->numbers[j] > 0;
            if (meta->texts) sum += (unsigned char)meta->texts[j].bytes[meta->texts[j].n];
        }
    }
    return sum;
}

static void read_tensors(const cv_checkpoint *ckpt)
{
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *tensor = &ckpt->tensors[i];
        unsigned char bytes[512];
        size_t block = cv_dtype_of(tensor->dtype)->block;
        check(cv_checkpoint_find(ckpt, tensor->name) != NULL);
        check(tensor->count >= block && tensor->n_dims >= 1 && tensor->n_dims <= 4);
        check(cv_tensor_read(ckpt, tensor, 0, block, bytes, NULL) == CORVID_OK);
        check(cv_tensor_read(ckpt, tensor, tensor->count - block, block, bytes, NULL) == CORVID_OK);
    }
}

/* A header for the same keys and tensors, over data of zeros. */
static void write_again(const cv_checkpoint *ckpt)
{
    cv_arena arena;
    cv_header header;
    cv_arena_init(&arena, &cv_libc_allocator);
    corvid_status status = cv_gguf_header(&arena, ckpt->meta, ckpt->n_meta, ckpt->tensors,
                                          ckpt->n_tensors, &header, NULL);
    /* Refused is only a number that f32 cannot hold. */
    check(status == CORVID_OK || status == CORVID_E_ARGUMENT);
    if (status == CORVID_OK && header.data_bytes <= MAX_AGAIN) {
        size_t n = header.n + (size_t)header.data_bytes;
        unsigned char *file = calloc(n, 1);
        check(file != NULL);
        memcpy(file, header.bytes, header.n);
        cv_input in;
        cv_checkpoint again;
        cv_input_memory(&in, file, n, "again.gguf");
        check(cv_checkpoint_parse(&cv_libc_allocator, &in, &again, NULL) == CORVID_OK);
        size_t n_dropped = cv_checkpoint_meta(ckpt, "general.alignment") ? 1 : 0;
        check(again.n_meta + n_dropped == ckpt->n_meta);
        check(again.n_tensors == ckpt->n_tensors);
        for (size_t i = 0; i < again.n_tensors; i++) {
            const cv_tensor *a = &again.tensors[i], *b = &ckpt->tensors[i];
            check(strcmp(a->name, b->name) == 0 && a->dtype == b->dtype && a->count == b->count);
            check(memcmp(a->dims, b->dims, sizeof a->dims) == 0);
        }
        cv_checkpoint_close(&again);
        free(file);
    }
    cv_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static volatile unsigned sink;
    cv_input in;
    cv_checkpoint ckpt;
    corvid_error err = { CORVID_OK, "" };
    /* Only GGUF is meant here: other formats have targets of their own. */
    if (size < 4 || memcmp(data, "GGUF", 4) != 0) return 0;
    cv_input_memory(&in, data, size, "fuzz.gguf");
    corvid_status status = cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
        return 0;
    }
    sink = touch_meta(&ckpt);
    (void)sink;
    read_tensors(&ckpt);
    write_again(&ckpt);
    cv_checkpoint_close(&ckpt);
    return 0;
}

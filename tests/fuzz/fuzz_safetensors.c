/* fuzz_safetensors.c - any bytes as a safetensors file; what is accepted is read, and the header
 * that we write for it is accepted with the same tensors.
 *
 * Findings beyond those of the sanitizers: a tensor that cannot be read although the file was
 * accepted, tensors that do not fill the file, and a header of ours that we refuse. */
#include <stdlib.h>
#include <string.h>

#include "formats/header.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds)
{
    if (!holds) abort();
}

static void read_tensors(const cv_checkpoint *ckpt, size_t header)
{
    uint64_t total = 0;
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *t = &ckpt->tensors[i];
        unsigned char element[8];
        size_t bytes;
        check(cv_checkpoint_find(ckpt, t->name) == t);
        check(cv_dtype_bytes(t->dtype, t->count, &bytes));
        total += bytes;
        if (t->count == 0) continue;
        check(cv_tensor_read(ckpt, t, 0, 1, element, NULL) == CORVID_OK);
        check(cv_tensor_read(ckpt, t, t->count - 1, 1, element, NULL) == CORVID_OK);
    }
    check(header + total == ckpt->in.size);
}

static void check_same(const cv_checkpoint *a, const cv_checkpoint *b)
{
    check(a->n_tensors == b->n_tensors && a->n_meta == b->n_meta);
    for (size_t i = 0; i < a->n_tensors; i++) {
        const cv_tensor *s = &a->tensors[i], *t = &b->tensors[i];
        check(strcmp(s->name, t->name) == 0 && s->dtype == t->dtype && s->n_dims == t->n_dims);
        check(memcmp(s->dims, t->dims, sizeof s->dims) == 0);
    }
    for (size_t i = 0; i < a->n_meta; i++) {
        const cv_meta *m = &a->meta[i], *n = &b->meta[i];
        check(strcmp(m->key, n->key) == 0 && m->text.n == n->text.n);
        check(memcmp(m->text.bytes, n->text.bytes, m->text.n + 1) == 0);
    }
}

/* A header for the same metadata and tensors, over data of zeros. */
static void write_again(const cv_checkpoint *ckpt)
{
    cv_arena arena;
    cv_header header;
    cv_arena_init(&arena, &cv_libc_allocator);
    check(cv_safetensors_header(&arena, ckpt->meta, ckpt->n_meta, ckpt->tensors, ckpt->n_tensors,
                                &header, NULL) == CORVID_OK);
    check(header.n % 8 == 0);
    size_t n = header.n + (size_t)header.data_bytes; /* no more than the input had, and a header */
    unsigned char *file = calloc(n, 1);
    check(file != NULL);
    memcpy(file, header.bytes, header.n);
    cv_input in;
    cv_checkpoint again;
    cv_input_memory(&in, file, n, "again");
    check(cv_checkpoint_parse(&cv_libc_allocator, &in, &again, NULL) == CORVID_OK);
    check_same(ckpt, &again);
    cv_checkpoint_close(&again);
    free(file);
    cv_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    cv_input in;
    cv_checkpoint ckpt;
    corvid_error err = { CORVID_OK, "" };
    /* Whatever is no safetensors file belongs to another target. */
    if (size < 9 || data[8] != '{' || memcmp(data, "GGUF", 4) == 0 || data[0] == 'P') return 0;
    if (memcmp(data, "fmgg", 4) == 0 || data[0] == 0x80) return 0;
    cv_input_memory(&in, data, size, "fuzz");
    corvid_status status = cv_checkpoint_parse(&cv_libc_allocator, &in, &ckpt, &err);
    if (status != CORVID_OK) {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
        return 0;
    }
    size_t header = 8;
    for (int i = 0; i < 8; i++)
        header += (size_t)data[i] << (8 * i);
    read_tensors(&ckpt, header);
    write_again(&ckpt);
    cv_checkpoint_close(&ckpt);
    return 0;
}

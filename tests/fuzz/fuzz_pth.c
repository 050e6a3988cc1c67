/* fuzz_pth.c - any bytes as a PyTorch checkpoint: a zip archive, a legacy stream, or a bare pickle.
 *
 * A first byte '!' stands for a bare pickle, which is read on its own and once more inside a stream
 * that is otherwise whole: the fuzzer need not guess the container around it.  Beyond the
 * sanitizers' findings: memory out of proportion, a wrong status, a tensor that was accepted and
 * cannot be read. */
#include <stdlib.h>
#include <string.h>

#include "formats/checkpoint.h"
#include "formats/pickle.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define READ_BYTES 4096

static void check(bool holds)
{
    if (!holds) abort();
}

/* ---- memory, counted ------------------------------------------------------------------------ */

typedef struct counter {
    size_t now, peak;
} counter;

static void *counted_alloc(void *ctx, size_t bytes, size_t align)
{
    counter *c = ctx;
    unsigned char *block = cv_libc_allocator.alloc(NULL, bytes + align, align);
    if (!block) return NULL;
    memcpy(block, &bytes, sizeof bytes); /* align is 64 */
    c->now += bytes;
    if (c->now > c->peak) c->peak = c->now;
    return block + align;
}

static void counted_free(void *ctx, void *ptr)
{
    counter *c = ctx;
    unsigned char *block = (unsigned char *)ptr - CV_ALIGN;
    size_t bytes;
    memcpy(&bytes, block, sizeof bytes);
    c->now -= bytes;
    cv_libc_allocator.free(NULL, block);
}

static void check_memory(const counter *c, size_t size)
{
    check(c->now == 0 && c->peak <= 16 * size + ((size_t)16 << 20));
}

/* ---- whole files ---------------------------------------------------------------------------- */

/* The first and the last elements, strided or not. */
static void read_tensors(const cv_checkpoint *ckpt)
{
    static unsigned char bytes[READ_BYTES];
    for (size_t i = 0; i < ckpt->n_tensors; i++) {
        const cv_tensor *t = &ckpt->tensors[i];
        size_t n = READ_BYTES / cv_dtype_of(t->dtype)->block_bytes;
        if (n > t->count) n = t->count;
        check(cv_checkpoint_find(ckpt, t->name) != NULL);
        check(cv_tensor_read(ckpt, t, 0, n, bytes, NULL) == CORVID_OK);
        check(cv_tensor_read(ckpt, t, t->count - n, n, bytes, NULL) == CORVID_OK);
    }
}

static void read_meta(const cv_checkpoint *ckpt)
{
    for (size_t i = 0; i < ckpt->n_meta; i++) {
        const cv_meta *meta = &ckpt->meta[i];
        check(cv_checkpoint_meta(ckpt, meta->key) != NULL);
        if (meta->type == CV_META_TEXT) check(meta->text.bytes[meta->text.n] == '\0');
        for (size_t k = 0; meta->type == CV_META_TEXTS && k < meta->count; k++)
            check(meta->texts[k].bytes[meta->texts[k].n] == '\0');
    }
}

static void run_file(const uint8_t *data, size_t size)
{
    counter c = { 0 };
    const corvid_allocator mem = { &c, counted_alloc, counted_free };
    corvid_error err = { CORVID_OK, "" };
    cv_input in;
    cv_checkpoint ckpt;
    cv_input_memory(&in, data, size, "fuzz.pth");
    corvid_status status = cv_checkpoint_parse(&mem, &in, &ckpt, &err);
    if (status == CORVID_OK) {
        check(ckpt.n_tensors > 0);
        read_tensors(&ckpt);
        read_meta(&ckpt);
        cv_checkpoint_close(&ckpt);
    } else {
        check(status == CORVID_E_FORMAT && err.status == status && err.text[0] != '\0');
    }
    check_memory(&c, size);
}

/* ---- bare pickles --------------------------------------------------------------------------- */

static void run_pickle(const uint8_t *data, size_t size)
{
    counter c = { 0 };
    const corvid_allocator mem = { &c, counted_alloc, counted_free };
    corvid_error err = { CORVID_OK, "" };
    cv_pickle pickle;
    corvid_status status = cv_pickle_read(&pickle, &mem, data, size, 0, &err);
    check(status == CORVID_OK || (status == CORVID_E_FORMAT && err.text[0] != '\0'));
    check(pickle.used <= size);
    cv_pickle_free(&pickle);
    check_memory(&c, size);
}

/* The pickle as the object of a legacy stream with the storages "0" and "1", four floats each. */
static void run_stream(const uint8_t *data, size_t size)
{
    static const char head[] = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
                               "\x80\x02M\xe9\x03."
                               "\x80\x02}X\x0d\0\0\0little_endian\x88s.";
    static const char tail[] = "\x80\x02](X\x01\0\0\0\x30X\x01\0\0\0\x31"
                               "e."
                               "\4\0\0\0\0\0\0\0aaaabbbbccccdddd"
                               "\4\0\0\0\0\0\0\0eeeeffffgggghhhh";
    size_t n_head = sizeof head - 1, n_tail = sizeof tail - 1, n = n_head + size + n_tail;
    unsigned char *stream = malloc(n);
    check(stream != NULL);
    memcpy(stream, head, n_head);
    if (size) memcpy(stream + n_head, data, size);
    memcpy(stream + n_head + size, tail, n_tail);
    run_file(stream, n);
    free(stream);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 0 && data[0] == '!') {
        run_pickle(data + 1, size - 1);
        run_stream(data + 1, size - 1);
    } else if (size > 1 && (memcmp(data, "PK", 2) == 0 || memcmp(data, "\x80\x02", 2) == 0)) {
        run_file(data, size); /* other formats have targets of their own */
    }
    return 0;
}

/* pth_fixture.h - makes PyTorch checkpoints, well-formed and otherwise, for the tests.
 *
 * Whole files from lists of tensors (zip or legacy), and the pieces they are made of, from which
 * hostile files are put together.  Data is as in memory, so little-endian on the machines that
 * tests run on. */
#ifndef TEST_PTH_FIXTURE_H
#define TEST_PTH_FIXTURE_H

#include "formats/checkpoint.h"

/* ---- whole files ---------------------------------------------------------------------------- */

typedef struct pth_options {
    bool legacy;           /* the stream from before torch 1.6                     */
    bool parameters;       /* every tensor is a Parameter                          */
    bool plain_dict;       /* dict instead of OrderedDict with _metadata           */
    const char *wrapper;   /* {wrapper: {names}, "epoch": 3, ...}; NULL: bare      */
    const char *prefix;    /* before every name; NULL: none                        */
    const char *folder;    /* in the archive; NULL: "archive"                      */
    const char *byteorder; /* NULL: "little"                                       */
    /* Views: tensor i lives in storage[i], at offset (bytes) and strides as it says itself.
     * NULL: each tensor has its own storage, and its data[i] is contiguous. */
    const size_t *storage;
    size_t n_storages;    /* data then has this many entries                      */
    const size_t *counts; /* elements of each storage                             */
} pth_options;

/* The file's bytes, malloc'ed.  options may be NULL. */
unsigned char *pth_fixture_bytes(const cv_tensor *tensors, size_t n, const void *const *data,
                                 const pth_options *options, size_t *n_bytes);

/* A file of contiguous tensors (name, dtype, n_dims, dims are used) with their data. */
void pth_fixture_write(const char *path, const cv_tensor *tensors, size_t n,
                       const void *const *data, bool legacy);

/* ---- pieces --------------------------------------------------------------------------------- */

typedef struct pth_bytes {
    unsigned char *at; /* malloc'ed; free it */
    size_t n, room;
} pth_bytes;

void pth_put(pth_bytes *b, const void *bytes, size_t n);
void pth_op(pth_bytes *b, const char *ops);    /* opcodes without arguments    */
void pth_text(pth_bytes *b, const char *text); /* BINUNICODE                   */
void pth_int(pth_bytes *b, int64_t value);     /* BININT1, BININT2, ..., LONG1 */
void pth_global(pth_bytes *b, const char *module, const char *name);
void pth_sizes(pth_bytes *b, const int64_t *sizes, size_t n); /* a tuple of integers          */
void pth_number(pth_bytes *b, uint64_t value, size_t n);      /* n bytes, little-endian       */

/* The tensor call: a storage of count elements under key, and a view of it. */
void pth_storage(pth_bytes *b, const char *storage_class, const char *key, int64_t count,
                 bool legacy);
void pth_tensor(pth_bytes *b, const char *storage_class, const char *key, int64_t count,
                int64_t first, const int64_t *sizes, const int64_t *strides, size_t n_dims,
                bool legacy);
const char *pth_storage_class(cv_dtype dtype); /* "FloatStorage"               */

typedef struct pth_entry {
    const char *name;
    const void *bytes;
    size_t n;
    bool compressed;
} pth_entry;

unsigned char *pth_zip(const pth_entry *entries, size_t n, size_t *n_bytes);

/* The archive of a given data.pkl: archive/data.pkl, archive/version, archive/byteorder and one
 * storage archive/data/0 of n_data bytes (NULL: no storage). */
unsigned char *pth_zip_of(const pth_bytes *pickle, const void *data, size_t n_data,
                          size_t *n_bytes);

/* The legacy stream's magic, protocol and system information. */
void pth_legacy_head(pth_bytes *b);

#endif

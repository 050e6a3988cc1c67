/* pickle.h - the part of Python's pickle that PyTorch checkpoints are written in, as data.
 *
 * Nothing is looked up, imported or called: a global is accepted only when a table here knows it,
 * and a "call" builds one of a few plain values.  What a checkpoint may hold beside its tensors
 * (configurations, NumPy scalars) becomes an opaque value when its class is in that table; any
 * other global, and any other opcode, refuses the file by name.  [pth.pickle]
 *
 * Memory stays below 10 bytes per byte of pickle + 4 MiB; time is linear. */
#ifndef CV_PICKLE_H
#define CV_PICKLE_H

#include "base/memory.h"
#include "tensor/dtype.h"

#define CV_PICKLE_DEPTH 128 /* how deep values may nest in each other */
#define CV_PICKLE_DIMS  8   /* of one tensor */

typedef enum cv_pickled_type {
    CV_PICKLED_NONE,
    CV_PICKLED_BOOL,
    CV_PICKLED_INT,
    CV_PICKLED_FLOAT,
    CV_PICKLED_TEXT,
    CV_PICKLED_TUPLE,
    CV_PICKLED_LIST,
    CV_PICKLED_DICT,
    CV_PICKLED_GLOBAL,
    CV_PICKLED_STORAGE,
    CV_PICKLED_TENSOR,
    CV_PICKLED_OPAQUE, /* something harmless that nobody here needs */
    CV_PICKLED_MARK    /* on the interpreter's stack only */
} cv_pickled_type;

typedef enum cv_pickle_kind {
    CV_GLOBAL_ORDERED_DICT,
    CV_GLOBAL_TENSOR,    /* torch._utils._rebuild_tensor, _rebuild_tensor_v2 */
    CV_GLOBAL_PARAMETER, /* torch._utils._rebuild_parameter */
    CV_GLOBAL_STORAGE,
    CV_GLOBAL_OPAQUE,
    CV_GLOBAL_REFUSED /* known, and known not to be readable */
} cv_pickle_kind;

typedef struct cv_pickle_global {
    const char *name; /* "torch._utils._rebuild_tensor_v2" */
    cv_pickle_kind kind;
    cv_dtype dtype;     /* of a storage class */
    const char *reason; /* why it is refused, what to do */
} cv_pickle_global;

typedef struct cv_pickled cv_pickled;

/* Tuples, lists, and dicts (key, value, key, value, ...). */
typedef struct cv_pickled_items {
    cv_pickled *at;
    size_t n, capacity;
    unsigned depth;
    bool entered; /* for whoever walks the tree: cycles are possible */
} cv_pickled_items;

/* The bytes behind one or more tensors; one object per key. */
typedef struct cv_pickle_storage {
    const char *key; /* not terminated */
    size_t n_key;
    cv_dtype dtype;
    uint64_t count; /* elements */
    uint64_t hash;
    struct cv_pickle_storage *next, *next_in_bucket;
    bool located;    /* filled by the container's reader: */
    uint64_t offset; /* of the data, from the start of the file */
} cv_pickle_storage;

typedef struct cv_pickled_tensor {
    cv_pickle_storage *storage;
    uint64_t first; /* element 0, in elements of the storage */
    int n_dims;
    size_t count;                 /* product of dims */
    const size_t *dims, *strides; /* within the storage: checked */
} cv_pickled_tensor;

struct cv_pickled {
    uint32_t n; /* TEXT: bytes */
    uint32_t type;
    union {
        int64_t integer; /* INT, BOOL */
        double number;
        const char *text; /* into the pickle's bytes; not terminated */
        cv_pickled_items *items;
        cv_pickle_storage *storage;
        cv_pickled_tensor *tensor;
        const cv_pickle_global *global; /* GLOBAL, OPAQUE (NULL: a long integer, bytes) */
    } as;
};

typedef struct cv_pickle {
    cv_arena arena;
    cv_pickled root;
    uint64_t base;               /* offset of the pickle in the file */
    size_t used;                 /* bytes up to and with STOP */
    bool cut;                    /* failed because the bytes ended before STOP */
    cv_pickle_storage *storages; /* in the order of first mention */
    cv_pickle_storage *last_storage;
    size_t n_storages;
    cv_pickle_storage **buckets;
    size_t n_buckets; /* 0 or a power of two */
} cv_pickle;

/* Reads one pickle from the front of bytes[n], which must outlive the result.  base is the offset
 * of bytes in the file, for messages.  cv_pickle_free is due in either case. */
corvid_status cv_pickle_read(cv_pickle *out, const corvid_allocator *mem,
                             const unsigned char *bytes, size_t n, uint64_t base,
                             corvid_error *err);
void cv_pickle_free(cv_pickle *pickle); /* safe on a zeroed one */

const cv_pickled *cv_pickle_get(const cv_pickled *dict, const char *key); /* last one; or NULL */
bool cv_pickle_text_is(const cv_pickled *value, const char *text);
cv_pickle_storage *cv_pickle_storage_find(const cv_pickle *pickle, const char *key, size_t n);

/* A text for messages: cut to fit, with '?' for what is not printable ASCII; returns out. */
char *cv_pickle_show(char *out, size_t room, const char *text, size_t n);

/* NULL when the name is in no table. */
const cv_pickle_global *cv_pickle_global_find(const char *module, size_t n_module, const char *name,
                                              size_t n_name);

#endif

/* pickle.c - the interpreter behind pickle.h: a stack, a memo, and one handler per opcode.
 *
 * The table at the end names all opcodes of protocols 0 to 5, so that a refusal can say which one
 * it met; those without a handler are never needed by a checkpoint.  Values are 16 bytes and live
 * on the stack; containers, tensors and storages live in the arena and are shared by pointer. */
#include "formats/pickle.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "formats/dims.h"

#define STACK_LIMIT   ((size_t)1 << 16) /* values; Python's own pickler never needs 4,000 */
#define MARK_LIMIT    CV_PICKLE_DEPTH
#define MEMO_SLACK    1000 /* memo indices come in sequence, give or take a few */
#define GLOBAL_LIMIT  256  /* bytes of a module's or a class's name */
#define LONG_LIMIT    32   /* bytes of a long integer */
#define BUDGET_FACTOR 10
#define BUDGET_BASE   ((size_t)4 << 20)

typedef struct value_array {
    cv_pickled *at;
    size_t n, capacity;
} value_array;

typedef struct machine {
    cv_pickle *out;
    const corvid_allocator *mem;
    const unsigned char *bytes;
    size_t n, at; /* the pickle, and the next byte */
    size_t op_at; /* of the opcode being run */
    unsigned char op;
    uint64_t base;
    value_array stack, memo;
    size_t n_marks, n_puts;
    bool stopped;
    corvid_error *err;
} machine;

typedef struct opcode {
    const char *name;
    corvid_status (*run)(machine *m); /* NULL: refused */
} opcode;

static const opcode opcodes[256];

/* ---- messages ------------------------------------------------------------------------------- */

static corvid_status fail(machine *m, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static corvid_status fail(machine *m, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *name = opcodes[m->op].name;
    return cv_fail(m->err, CORVID_E_FORMAT, "pickle at offset %llu (%s): %s",
                   (unsigned long long)(m->base + m->op_at), name ? name : "no opcode", text);
}

static corvid_status fail_memory(machine *m)
{
    return cv_fail(m->err, CORVID_E_MEMORY,
                   "out of memory while reading the pickle of a checkpoint (%zu bytes)", m->n);
}

/* ---- bytes, memory, stack ------------------------------------------------------------------- */

/* The next n bytes. */
static corvid_status take(machine *m, size_t n, const unsigned char **out)
{
    size_t left = m->n - m->at;
    if (n > left) {
        m->out->cut = true;
        return fail(m, "the pickle ends %zu bytes further on, wanted %zu; the file is cut short",
                    left, n);
    }
    *out = m->bytes + m->at;
    m->at += n;
    return CORVID_OK;
}

/* An unsigned little-endian number of n bytes. */
static corvid_status take_number(machine *m, size_t n, uint64_t *out)
{
    const unsigned char *bytes = NULL;
    CV_TRY(take(m, n, &bytes));
    uint64_t value = 0;
    for (size_t i = n; i-- > 0;)
        value = value << 8 | bytes[i];
    *out = value;
    return CORVID_OK;
}

/* Would `more` bytes keep the promise of pickle.h? */
static corvid_status charge(machine *m, size_t more)
{
    size_t limit, used = m->out->arena.total;
    used += (m->stack.capacity + m->memo.capacity) * sizeof(cv_pickled);
    used += m->out->n_buckets * sizeof *m->out->buckets;
    if (!cv_mul_size(m->n, BUDGET_FACTOR, &limit) || !cv_add_size(limit, BUDGET_BASE, &limit))
        limit = SIZE_MAX;
    if (used > limit || more > limit - used)
        return fail(m,
                    "the values of this pickle take more than %zu bytes, out of all "
                    "proportion to its %zu; refused",
                    limit, m->n);
    return CORVID_OK;
}

static corvid_status arena_new(machine *m, size_t count, size_t size, void **out)
{
    size_t bytes;
    if (!cv_mul_size(count, size, &bytes)) return fail_memory(m);
    CV_TRY(charge(m, bytes));
    *out = cv_arena_alloc(&m->out->arena, count, size);
    return *out ? CORVID_OK : fail_memory(m);
}

/* Room for n values altogether; new ones are NONE. */
static corvid_status reserve(machine *m, value_array *array, size_t n)
{
    if (n <= array->capacity) return CORVID_OK;
    size_t capacity = array->capacity + array->capacity / 2;
    if (capacity < n) capacity = n;
    if (capacity < 256) capacity = 256;
    CV_TRY(charge(m, capacity * sizeof(cv_pickled)));
    cv_pickled *grown = cv_alloc_zero(m->mem, capacity, sizeof *grown);
    if (!grown) return fail_memory(m);
    if (array->n) memcpy(grown, array->at, array->n * sizeof *grown);
    cv_free(m->mem, array->at);
    array->at = grown;
    array->capacity = capacity;
    return CORVID_OK;
}

static corvid_status push(machine *m, cv_pickled value)
{
    if (m->stack.n == STACK_LIMIT)
        return fail(m, "more than %zu values on the stack; refused", STACK_LIMIT);
    CV_TRY(reserve(m, &m->stack, m->stack.n + 1));
    m->stack.at[m->stack.n++] = value;
    return CORVID_OK;
}

/* The i-th value from the top (0: the top itself), which must not be a mark or below one. */
static corvid_status peek(machine *m, size_t i, cv_pickled **out)
{
    for (size_t k = 0; k <= i; k++)
        if (k >= m->stack.n || m->stack.at[m->stack.n - 1 - k].type == CV_PICKLED_MARK)
            return fail(m, "needs %zu values on the stack, finds %zu", i + 1, k);
    *out = &m->stack.at[m->stack.n - 1 - i];
    return CORVID_OK;
}

static corvid_status pop(machine *m, cv_pickled *out)
{
    cv_pickled *top = NULL;
    CV_TRY(peek(m, 0, &top));
    *out = *top;
    m->stack.n--;
    return CORVID_OK;
}

/* Takes the values above the last mark, and the mark, off the stack.  They stay readable at
 * *values until the next push. */
static corvid_status pop_to_mark(machine *m, cv_pickled **values, size_t *n)
{
    if (m->n_marks == 0) return fail(m, "there is no mark on the stack");
    size_t i = m->stack.n;
    while (m->stack.at[i - 1].type != CV_PICKLED_MARK)
        i--;
    *values = m->stack.at + i;
    *n = m->stack.n - i;
    m->stack.n = i - 1;
    m->n_marks--;
    return CORVID_OK;
}

/* ---- containers ----------------------------------------------------------------------------- */

static bool is_container(const cv_pickled *value)
{
    return value->type == CV_PICKLED_TUPLE || value->type == CV_PICKLED_LIST ||
           value->type == CV_PICKLED_DICT;
}

/* A container of the given type with room for n values. */
static corvid_status container_new(machine *m, cv_pickled_type type, size_t n, cv_pickled *out)
{
    size_t bytes;
    void *block = NULL;
    if (!cv_mul_size(n, sizeof(cv_pickled), &bytes) ||
        !cv_add_size(bytes, sizeof(cv_pickled_items), &bytes))
        return fail_memory(m);
    CV_TRY(arena_new(m, bytes, 1, &block));
    cv_pickled_items *items = block;
    items->at = (cv_pickled *)(void *)(items + 1);
    items->capacity = n;
    items->depth = 1;
    *out = (cv_pickled){ .type = type, .as.items = items };
    return CORVID_OK;
}

static corvid_status container_add(machine *m, cv_pickled_items *items, const cv_pickled *values,
                                   size_t n)
{
    if (items->capacity - items->n < n) {
        size_t capacity = 2 * items->capacity;
        if (capacity < items->n + n) capacity = items->n + n;
        void *grown = NULL;
        CV_TRY(arena_new(m, capacity, sizeof *items->at, &grown));
        if (items->n) memcpy(grown, items->at, items->n * sizeof *items->at);
        items->at = grown;
        items->capacity = capacity;
    }
    for (size_t i = 0; i < n; i++)
        if (is_container(&values[i]) && values[i].as.items->depth >= items->depth)
            items->depth = values[i].as.items->depth + 1;
    if (items->depth > CV_PICKLE_DEPTH)
        return fail(m, "values nested more than %d deep; refused", CV_PICKLE_DEPTH);
    if (n) memcpy(items->at + items->n, values, n * sizeof *values);
    items->n += n;
    return CORVID_OK;
}

static corvid_status push_container(machine *m, cv_pickled_type type, const cv_pickled *values,
                                    size_t n)
{
    cv_pickled made;
    CV_TRY(container_new(m, type, n, &made));
    CV_TRY(container_add(m, made.as.items, values, n));
    return push(m, made);
}

/* ---- constants ------------------------------------------------------------------------------ */

static corvid_status push_int(machine *m, int64_t value)
{
    return push(m, (cv_pickled){ .type = CV_PICKLED_INT, .as.integer = value });
}

static corvid_status push_opaque(machine *m, const cv_pickle_global *global)
{
    return push(m, (cv_pickled){ .type = CV_PICKLED_OPAQUE, .as.global = global });
}

static corvid_status run_proto(machine *m)
{
    uint64_t version;
    CV_TRY(take_number(m, 1, &version));
    if (version < 2 || version > 5)
        return fail(m, "pickle protocol %llu; 2 to 5 are read", (unsigned long long)version);
    return CORVID_OK;
}

/* A frame only helps readers that stream. */
static corvid_status run_frame(machine *m)
{
    uint64_t length;
    return take_number(m, 8, &length);
}

static corvid_status run_none(machine *m)
{
    return push(m, (cv_pickled){ .type = CV_PICKLED_NONE });
}

static corvid_status run_bool(machine *m)
{
    return push(m, (cv_pickled){ .type = CV_PICKLED_BOOL, .as.integer = m->op == 0x88 });
}

static corvid_status run_binint(machine *m)
{
    uint64_t bits;
    CV_TRY(take_number(m, 4, &bits));
    return push_int(m, bits & 0x80000000u ? (int64_t)bits - ((int64_t)1 << 32) : (int64_t)bits);
}

static corvid_status run_binint1(machine *m)
{
    uint64_t value;
    CV_TRY(take_number(m, 1, &value));
    return push_int(m, (int64_t)value);
}

static corvid_status run_binint2(machine *m)
{
    uint64_t value;
    CV_TRY(take_number(m, 2, &value));
    return push_int(m, (int64_t)value);
}

/* Two's complement of any length.  No size or count needs more than 64 bits; seeds and generator
 * states may, and nobody asks for their value. */
static corvid_status run_long1(machine *m)
{
    uint64_t n;
    const unsigned char *bytes = NULL;
    CV_TRY(take_number(m, 1, &n));
    if (n > LONG_LIMIT)
        return fail(m, "an integer of %llu bytes; no checkpoint needs more than %d",
                    (unsigned long long)n, LONG_LIMIT);
    CV_TRY(take(m, (size_t)n, &bytes));
    if (n > 8) return push_opaque(m, NULL);
    uint64_t bits = n && bytes[n - 1] & 0x80 ? UINT64_MAX : 0;
    for (size_t i = (size_t)n; i-- > 0;)
        bits = bits << 8 | bytes[i];
    int64_t value;
    memcpy(&value, &bits, sizeof value);
    return push_int(m, value);
}

/* IEEE double, big-endian: the one such number in the format. */
static corvid_status run_binfloat(machine *m)
{
    const unsigned char *bytes = NULL;
    CV_TRY(take(m, 8, &bytes));
    uint64_t bits = 0;
    for (size_t i = 0; i < 8; i++)
        bits = bits << 8 | bytes[i];
    cv_pickled value = { .type = CV_PICKLED_FLOAT };
    memcpy(&value.as.number, &bits, sizeof bits);
    return push(m, value);
}

static corvid_status push_text(machine *m, size_t length_bytes)
{
    uint64_t n;
    const unsigned char *bytes = NULL;
    CV_TRY(take_number(m, length_bytes, &n));
    CV_TRY(take(m, (size_t)n, &bytes)); /* n < 2^32 */
    return push(m, (cv_pickled){
                       .type = CV_PICKLED_TEXT, .n = (uint32_t)n, .as.text = (const char *)bytes });
}

static corvid_status run_text(machine *m)
{
    return push_text(m, 4);
}

static corvid_status run_short_text(machine *m)
{
    return push_text(m, 1);
}

static corvid_status skip_bytes(machine *m, size_t length_bytes)
{
    uint64_t n;
    const unsigned char *bytes = NULL;
    CV_TRY(take_number(m, length_bytes, &n));
    CV_TRY(take(m, (size_t)n, &bytes));
    return push_opaque(m, NULL);
}

static corvid_status run_bytes(machine *m)
{
    return skip_bytes(m, 4);
}

static corvid_status run_short_bytes(machine *m)
{
    return skip_bytes(m, 1);
}

/* ---- building containers -------------------------------------------------------------------- */

static corvid_status run_mark(machine *m)
{
    if (m->n_marks == MARK_LIMIT)
        return fail(m, "more than %d open marks: values nested too deep; refused", MARK_LIMIT);
    m->n_marks++;
    return push(m, (cv_pickled){ .type = CV_PICKLED_MARK });
}

static corvid_status run_empty_tuple(machine *m)
{
    return push_container(m, CV_PICKLED_TUPLE, NULL, 0);
}

static corvid_status run_empty_list(machine *m)
{
    return push_container(m, CV_PICKLED_LIST, NULL, 0);
}

static corvid_status run_empty_dict(machine *m)
{
    return push_container(m, CV_PICKLED_DICT, NULL, 0);
}

static corvid_status run_tuple(machine *m)
{
    cv_pickled *values = NULL;
    size_t n;
    CV_TRY(pop_to_mark(m, &values, &n));
    return push_container(m, CV_PICKLED_TUPLE, values, n);
}

/* TUPLE1, TUPLE2, TUPLE3: 0x85, 0x86, 0x87. */
static corvid_status run_tuple_n(machine *m)
{
    size_t n = m->op - 0x84u;
    cv_pickled *values = NULL;
    CV_TRY(peek(m, n - 1, &values));
    m->stack.n -= n;
    return push_container(m, CV_PICKLED_TUPLE, values, n);
}

/* Adds to the container on the top of the stack; an opaque object keeps nothing. */
static corvid_status add_to_top(machine *m, cv_pickled_type type, const cv_pickled *values,
                                size_t n)
{
    cv_pickled *top = NULL;
    CV_TRY(peek(m, 0, &top));
    if (top->type == CV_PICKLED_OPAQUE) return CORVID_OK;
    if (top->type != (uint32_t)type)
        return fail(m, "expects a %s on the stack", type == CV_PICKLED_DICT ? "dict" : "list");
    if (type == CV_PICKLED_DICT && n % 2) return fail(m, "a key without a value");
    return container_add(m, top->as.items, values, n);
}

static corvid_status run_append(machine *m)
{
    cv_pickled value;
    CV_TRY(pop(m, &value));
    return add_to_top(m, CV_PICKLED_LIST, &value, 1);
}

static corvid_status run_appends(machine *m)
{
    cv_pickled *values = NULL;
    size_t n;
    CV_TRY(pop_to_mark(m, &values, &n));
    return add_to_top(m, CV_PICKLED_LIST, values, n);
}

static corvid_status run_setitem(machine *m)
{
    cv_pickled pair[2];
    CV_TRY(pop(m, &pair[1]));
    CV_TRY(pop(m, &pair[0]));
    return add_to_top(m, CV_PICKLED_DICT, pair, 2);
}

static corvid_status run_setitems(machine *m)
{
    cv_pickled *values = NULL;
    size_t n;
    CV_TRY(pop_to_mark(m, &values, &n));
    return add_to_top(m, CV_PICKLED_DICT, values, n);
}

/* Attributes of an object: the `_metadata` of a state_dict, the flags of a configuration.  None
 * of them is needed. */
static corvid_status run_build(machine *m)
{
    cv_pickled state, *top = NULL;
    CV_TRY(pop(m, &state));
    CV_TRY(peek(m, 0, &top));
    if (top->type != CV_PICKLED_DICT && top->type != CV_PICKLED_OPAQUE &&
        top->type != CV_PICKLED_TENSOR)
        return fail(m, "sets attributes of something that has none");
    return CORVID_OK;
}

/* ---- memo ----------------------------------------------------------------------------------- */

/* Pickles number their memo in sequence, so an index far ahead of the count is an attack. */
static corvid_status memo_put(machine *m, uint64_t index)
{
    cv_pickled *top = NULL;
    CV_TRY(peek(m, 0, &top));
    if (index > m->n_puts + MEMO_SLACK)
        return fail(m, "memo index %llu after %zu entries; refused", (unsigned long long)index,
                    m->n_puts);
    cv_pickled value = *top;
    size_t n = (size_t)index + 1;
    CV_TRY(reserve(m, &m->memo, n));
    m->memo.at[index] = value;
    if (m->memo.n < n) m->memo.n = n;
    m->n_puts++;
    return CORVID_OK;
}

static corvid_status memo_get(machine *m, uint64_t index)
{
    if (index >= m->memo.n)
        return fail(m, "memo entry %llu was never written", (unsigned long long)index);
    return push(m, m->memo.at[index]);
}

static corvid_status run_binput(machine *m)
{
    uint64_t index;
    CV_TRY(take_number(m, 1, &index));
    return memo_put(m, index);
}

static corvid_status run_long_binput(machine *m)
{
    uint64_t index;
    CV_TRY(take_number(m, 4, &index));
    return memo_put(m, index);
}

static corvid_status run_memoize(machine *m)
{
    return memo_put(m, m->memo.n);
}

static corvid_status run_binget(machine *m)
{
    uint64_t index;
    CV_TRY(take_number(m, 1, &index));
    return memo_get(m, index);
}

static corvid_status run_long_binget(machine *m)
{
    uint64_t index;
    CV_TRY(take_number(m, 4, &index));
    return memo_get(m, index);
}

/* ---- globals -------------------------------------------------------------------------------- */

static corvid_status push_global(machine *m, const char *module, size_t n_module, const char *name,
                                 size_t n_name)
{
    const cv_pickle_global *global = cv_pickle_global_find(module, n_module, name, n_name);
    if (!global) {
        char shown[2][80];
        return fail(m, "%s.%s is not something a checkpoint needs; refused",
                    cv_pickle_show(shown[0], sizeof shown[0], module, n_module),
                    cv_pickle_show(shown[1], sizeof shown[1], name, n_name));
    }
    if (global->kind == CV_GLOBAL_REFUSED) return fail(m, "%s: %s", global->name, global->reason);
    return push(m, (cv_pickled){ .type = CV_PICKLED_GLOBAL, .as.global = global });
}

/* A name that ends with a newline, without it. */
static corvid_status take_line(machine *m, const char **line, size_t *n)
{
    const unsigned char *start = m->bytes + m->at;
    size_t left = m->n - m->at;
    size_t limit = left < GLOBAL_LIMIT ? left : GLOBAL_LIMIT;
    const unsigned char *end = limit ? memchr(start, '\n', limit) : NULL;
    if (!end) {
        m->out->cut = left < GLOBAL_LIMIT;
        return fail(m, "the name of a global does not end within %zu bytes", limit);
    }
    *line = (const char *)start;
    *n = (size_t)(end - start);
    m->at += *n + 1;
    return CORVID_OK;
}

static corvid_status run_global(machine *m)
{
    const char *module = NULL, *name = NULL;
    size_t n_module, n_name;
    CV_TRY(take_line(m, &module, &n_module));
    CV_TRY(take_line(m, &name, &n_name));
    return push_global(m, module, n_module, name, n_name);
}

static corvid_status run_stack_global(machine *m)
{
    cv_pickled name, module;
    CV_TRY(pop(m, &name));
    CV_TRY(pop(m, &module));
    if (name.type != CV_PICKLED_TEXT || module.type != CV_PICKLED_TEXT)
        return fail(m, "the name of a global is not a text");
    return push_global(m, module.as.text, module.n, name.as.text, name.n);
}

/* ---- storages ------------------------------------------------------------------------------- */

/* FNV-1a. */
static uint64_t hash_of(const char *key, size_t n)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
    return hash ^ hash >> 32;
}

cv_pickle_storage *cv_pickle_storage_find(const cv_pickle *pickle, const char *key, size_t n)
{
    if (pickle->n_buckets == 0) return NULL;
    uint64_t hash = hash_of(key, n);
    cv_pickle_storage *s = pickle->buckets[hash & (pickle->n_buckets - 1)];
    while (s && !(s->hash == hash && s->n_key == n && memcmp(s->key, key, n) == 0))
        s = s->next_in_bucket;
    return s;
}

/* Twice the buckets, with every storage in its new one. */
static corvid_status rehash(machine *m)
{
    cv_pickle *p = m->out;
    size_t n = p->n_buckets ? 2 * p->n_buckets : 64;
    CV_TRY(charge(m, n * sizeof *p->buckets));
    cv_pickle_storage **buckets = cv_alloc_zero(m->mem, n, sizeof(cv_pickle_storage *));
    if (!buckets) return fail_memory(m);
    for (cv_pickle_storage *s = p->storages; s; s = s->next) {
        cv_pickle_storage **head = &buckets[s->hash & (n - 1)];
        s->next_in_bucket = *head;
        *head = s;
    }
    cv_free(m->mem, p->buckets);
    p->buckets = buckets;
    p->n_buckets = n;
    return CORVID_OK;
}

static corvid_status storage_new(machine *m, const cv_pickled *key, cv_dtype dtype, uint64_t count,
                                 cv_pickle_storage **out)
{
    cv_pickle *p = m->out;
    void *block = NULL;
    if (p->n_storages >= p->n_buckets) CV_TRY(rehash(m));
    CV_TRY(arena_new(m, 1, sizeof(cv_pickle_storage), &block));
    cv_pickle_storage *s = block;
    *s =
        (cv_pickle_storage){ .key = key->as.text, .n_key = key->n, .dtype = dtype, .count = count };
    s->hash = hash_of(s->key, s->n_key);
    cv_pickle_storage **head = &p->buckets[s->hash & (p->n_buckets - 1)];
    s->next_in_bucket = *head;
    *head = s;
    if (p->last_storage)
        p->last_storage->next = s;
    else
        p->storages = s;
    p->last_storage = s;
    p->n_storages++;
    *out = s;
    return CORVID_OK;
}

/* ("storage", class, key, location, count [, view data]) -> the storage. */
static corvid_status run_binpersid(machine *m)
{
    cv_pickled id;
    CV_TRY(pop(m, &id));
    if (id.type != CV_PICKLED_TUPLE || id.as.items->n < 5 || id.as.items->n > 6)
        return fail(m, "the persistent id is not a tuple of 5 or 6 values");
    const cv_pickled *v = id.as.items->at;
    if (!cv_pickle_text_is(&v[0], "storage"))
        return fail(m, "the persistent id does not begin with \"storage\"");
    if (v[1].type != CV_PICKLED_GLOBAL || v[1].as.global->kind != CV_GLOBAL_STORAGE)
        return fail(m, "the persistent id names no storage class");
    if (v[2].type != CV_PICKLED_TEXT) return fail(m, "the storage's key is not a text");
    if (v[4].type != CV_PICKLED_INT || v[4].as.integer < 0)
        return fail(m, "the storage's element count is not a number >= 0");
    if (id.as.items->n == 6 && v[5].type != CV_PICKLED_NONE)
        return fail(m, "a view of another storage, as PyTorch before 0.4 wrote; save it again");

    cv_dtype dtype = v[1].as.global->dtype;
    uint64_t count = (uint64_t)v[4].as.integer;
    size_t bytes;
    char shown[40];
    cv_pickle_show(shown, sizeof shown, v[2].as.text, v[2].n);
    if (count > SIZE_MAX || !cv_dtype_bytes(dtype, (size_t)count, &bytes))
        return fail(m, "storage %s claims %llu elements", shown, (unsigned long long)count);
    cv_pickle_storage *s = cv_pickle_storage_find(m->out, v[2].as.text, v[2].n);
    if (!s)
        CV_TRY(storage_new(m, &v[2], dtype, count, &s));
    else if (s->dtype != dtype || s->count != count)
        return fail(m, "storage %s is %llu x %s here, and was %llu x %s before", shown,
                    (unsigned long long)count, cv_dtype_of(dtype)->name,
                    (unsigned long long)s->count, cv_dtype_of(s->dtype)->name);
    return push(m, (cv_pickled){ .type = CV_PICKLED_STORAGE, .as.storage = s });
}

/* ---- what REDUCE makes ---------------------------------------------------------------------- */

/* OrderedDict(), OrderedDict([[key, value], ...]). */
static corvid_status make_ordered_dict(machine *m, const cv_pickled_items *args)
{
    if (args->n == 0) return push_container(m, CV_PICKLED_DICT, NULL, 0);
    if (args->n != 1 || args->at[0].type != CV_PICKLED_LIST)
        return fail(m, "OrderedDict takes a list of pairs or nothing");
    const cv_pickled_items *pairs = args->at[0].as.items;
    cv_pickled dict;
    CV_TRY(container_new(m, CV_PICKLED_DICT, 2 * pairs->n, &dict));
    for (size_t i = 0; i < pairs->n; i++) {
        const cv_pickled *pair = &pairs->at[i];
        if ((pair->type != CV_PICKLED_TUPLE && pair->type != CV_PICKLED_LIST) ||
            pair->as.items->n != 2)
            return fail(m, "item %zu of an OrderedDict is not a pair", i);
        CV_TRY(container_add(m, dict.as.items, pair->as.items->at, 2));
    }
    return push(m, dict);
}

/* The values of a tuple of numbers >= 0. */
static corvid_status take_sizes(machine *m, const cv_pickled_items *tuple, const char *what,
                                size_t *sizes)
{
    for (size_t i = 0; i < tuple->n; i++) {
        const cv_pickled *v = &tuple->at[i];
        if (v->type != CV_PICKLED_INT) return fail(m, "%s %zu is not a whole number", what, i);
        if (v->as.integer < 0)
            return fail(m, "%s %zu is %lld; it must not be negative", what, i,
                        (long long)v->as.integer);
        sizes[i] = (size_t)v->as.integer;
    }
    return CORVID_OK;
}

/* first + sum (size - 1) * stride < the storage's count, unless there is no element at all. */
static corvid_status check_within(machine *m, cv_pickled_tensor *t)
{
    size_t last = (size_t)t->first, step;
    if (!cv_dims_count(t->dims, t->n_dims, &t->count))
        return fail(m, "the product of the tensor's sizes overflows");
    if (t->count == 0) return CORVID_OK;
    for (int i = 0; i < t->n_dims; i++)
        if (!cv_mul_size(t->dims[i] - 1, t->strides[i], &step) || !cv_add_size(last, step, &last))
            return fail(m, "the tensor's strides overflow");
    char shown[40];
    if (last >= t->storage->count)
        return fail(m, "the tensor reaches element %zu of storage %s, which has %llu", last,
                    cv_pickle_show(shown, sizeof shown, t->storage->key, t->storage->n_key),
                    (unsigned long long)t->storage->count);
    return CORVID_OK;
}

/* _rebuild_tensor_v2(storage, first, sizes, strides, ...). */
static corvid_status make_tensor(machine *m, const cv_pickled_items *args)
{
    const cv_pickled *v = args->at;
    if (args->n < 4 || v[0].type != CV_PICKLED_STORAGE || v[1].type != CV_PICKLED_INT ||
        v[2].type != CV_PICKLED_TUPLE || v[3].type != CV_PICKLED_TUPLE)
        return fail(m, "a tensor takes (storage, offset, sizes, strides, ...)");
    size_t n_dims = v[2].as.items->n;
    if (v[1].as.integer < 0)
        return fail(m, "the tensor's offset is %lld; it must not be negative",
                    (long long)v[1].as.integer);
    if (n_dims > CV_PICKLE_DIMS)
        return fail(m, "a tensor of %zu dimensions; at most %d are read", n_dims, CV_PICKLE_DIMS);
    if (v[3].as.items->n != n_dims)
        return fail(m, "%zu sizes and %zu strides", n_dims, v[3].as.items->n);

    void *block = NULL, *sizes = NULL;
    CV_TRY(arena_new(m, 1, sizeof(cv_pickled_tensor), &block));
    CV_TRY(arena_new(m, 2 * n_dims + 1, sizeof(size_t), &sizes));
    size_t *dims = sizes, *strides = dims + n_dims;
    CV_TRY(take_sizes(m, v[2].as.items, "size", dims));
    CV_TRY(take_sizes(m, v[3].as.items, "stride", strides));
    cv_pickled_tensor *t = block;
    *t = (cv_pickled_tensor){ .storage = v[0].as.storage,
                              .first = (uint64_t)v[1].as.integer,
                              .n_dims = (int)n_dims,
                              .dims = dims,
                              .strides = strides };
    CV_TRY(check_within(m, t));
    return push(m, (cv_pickled){ .type = CV_PICKLED_TENSOR, .as.tensor = t });
}

/* REDUCE and NEWOBJ: (global, arguments) -> a value.  Nothing is called. */
static corvid_status run_reduce(machine *m)
{
    cv_pickled args, callable;
    CV_TRY(pop(m, &args));
    CV_TRY(pop(m, &callable));
    if (callable.type != CV_PICKLED_GLOBAL) return fail(m, "calls something that is no global");
    const cv_pickle_global *global = callable.as.global;
    if (args.type != CV_PICKLED_TUPLE)
        return fail(m, "the arguments of %s are not a tuple", global->name);
    switch (global->kind) {
    case CV_GLOBAL_ORDERED_DICT: return make_ordered_dict(m, args.as.items);
    case CV_GLOBAL_TENSOR: return make_tensor(m, args.as.items);
    case CV_GLOBAL_PARAMETER:
        if (args.as.items->n < 1 || args.as.items->at[0].type != CV_PICKLED_TENSOR)
            return fail(m, "%s takes a tensor first", global->name);
        return push(m, args.as.items->at[0]);
    case CV_GLOBAL_OPAQUE: return push_opaque(m, global);
    case CV_GLOBAL_STORAGE:
    case CV_GLOBAL_REFUSED: break;
    }
    return fail(m, "%s is not called in a checkpoint; refused", global->name);
}

static corvid_status run_stop(machine *m)
{
    CV_TRY(pop(m, &m->out->root));
    if (m->stack.n) return fail(m, "%zu values are left over on the stack", m->stack.n);
    m->stopped = true;
    return CORVID_OK;
}

/* ---- the loop ------------------------------------------------------------------------------- */

static const opcode opcodes[256] = {
    ['('] = { "MARK", run_mark },
    ['.'] = { "STOP", run_stop },
    ['0'] = { "POP", NULL },
    ['1'] = { "POP_MARK", NULL },
    ['2'] = { "DUP", NULL },
    ['F'] = { "FLOAT", NULL },
    ['I'] = { "INT", NULL },
    ['J'] = { "BININT", run_binint },
    ['K'] = { "BININT1", run_binint1 },
    ['L'] = { "LONG", NULL },
    ['M'] = { "BININT2", run_binint2 },
    ['N'] = { "NONE", run_none },
    ['P'] = { "PERSID", NULL },
    ['Q'] = { "BINPERSID", run_binpersid },
    ['R'] = { "REDUCE", run_reduce },
    ['S'] = { "STRING", NULL },
    ['T'] = { "BINSTRING", run_text },
    ['U'] = { "SHORT_BINSTRING", run_short_text },
    ['V'] = { "UNICODE", NULL },
    ['X'] = { "BINUNICODE", run_text },
    ['a'] = { "APPEND", run_append },
    ['b'] = { "BUILD", run_build },
    ['c'] = { "GLOBAL", run_global },
    ['d'] = { "DICT", NULL },
    ['}'] = { "EMPTY_DICT", run_empty_dict },
    ['e'] = { "APPENDS", run_appends },
    ['g'] = { "GET", NULL },
    ['h'] = { "BINGET", run_binget },
    ['i'] = { "INST", NULL },
    ['j'] = { "LONG_BINGET", run_long_binget },
    ['l'] = { "LIST", NULL },
    [']'] = { "EMPTY_LIST", run_empty_list },
    ['o'] = { "OBJ", NULL },
    ['p'] = { "PUT", NULL },
    ['q'] = { "BINPUT", run_binput },
    ['r'] = { "LONG_BINPUT", run_long_binput },
    ['s'] = { "SETITEM", run_setitem },
    ['t'] = { "TUPLE", run_tuple },
    [')'] = { "EMPTY_TUPLE", run_empty_tuple },
    ['u'] = { "SETITEMS", run_setitems },
    ['G'] = { "BINFLOAT", run_binfloat },
    ['B'] = { "BINBYTES", run_bytes },
    ['C'] = { "SHORT_BINBYTES", run_short_bytes },
    [0x80] = { "PROTO", run_proto },
    [0x81] = { "NEWOBJ", run_reduce },
    [0x82] = { "EXT1", NULL },
    [0x83] = { "EXT2", NULL },
    [0x84] = { "EXT4", NULL },
    [0x85] = { "TUPLE1", run_tuple_n },
    [0x86] = { "TUPLE2", run_tuple_n },
    [0x87] = { "TUPLE3", run_tuple_n },
    [0x88] = { "NEWTRUE", run_bool },
    [0x89] = { "NEWFALSE", run_bool },
    [0x8a] = { "LONG1", run_long1 },
    [0x8b] = { "LONG4", NULL },
    [0x8c] = { "SHORT_BINUNICODE", run_short_text },
    [0x8d] = { "BINUNICODE8", NULL },
    [0x8e] = { "BINBYTES8", NULL },
    [0x8f] = { "EMPTY_SET", NULL },
    [0x90] = { "ADDITEMS", NULL },
    [0x91] = { "FROZENSET", NULL },
    [0x92] = { "NEWOBJ_EX", NULL },
    [0x93] = { "STACK_GLOBAL", run_stack_global },
    [0x94] = { "MEMOIZE", run_memoize },
    [0x95] = { "FRAME", run_frame },
    [0x96] = { "BYTEARRAY8", NULL },
    [0x97] = { "NEXT_BUFFER", NULL },
    [0x98] = { "READONLY_BUFFER", NULL },
};

static corvid_status step(machine *m)
{
    const unsigned char *op = NULL;
    m->op_at = m->at;
    CV_TRY(take(m, 1, &op));
    m->op = *op;
    if (opcodes[m->op].run) return opcodes[m->op].run(m);
    if (opcodes[m->op].name)
        return fail(m, "opcode %s (0x%02x) is not one that checkpoints use; refused",
                    opcodes[m->op].name, m->op);
    return fail(m, "0x%02x is no opcode of pickle protocols 0 to 5; the file is damaged", m->op);
}

corvid_status cv_pickle_read(cv_pickle *out, const corvid_allocator *mem,
                             const unsigned char *bytes, size_t n, uint64_t base, corvid_error *err)
{
    *out = (cv_pickle){ .root = { .type = CV_PICKLED_NONE }, .base = base };
    cv_arena_init(&out->arena, mem);
    machine m = { .out = out, .mem = mem, .bytes = bytes, .n = n, .base = base, .err = err };
    corvid_status status = CORVID_OK;
    while (status == CORVID_OK && !m.stopped)
        status = step(&m);
    out->used = m.at;
    cv_free(mem, m.stack.at);
    cv_free(mem, m.memo.at);
    return status;
}

void cv_pickle_free(cv_pickle *pickle)
{
    if (!pickle->arena.mem) return;
    cv_free(pickle->arena.mem, pickle->buckets);
    cv_arena_free(&pickle->arena);
    *pickle = (cv_pickle){ .root = { .type = CV_PICKLED_NONE } };
}

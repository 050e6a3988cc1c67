/* picture_raw.c - the files of MNIST (IDX) and of CIFAR-10 and CIFAR-100 (binary), from a folder.
 *
 * Every size in them is checked against the bytes that are there.  Pixels stay as they are; they
 * become RGB when they are used. */
#include "train/picture_raw.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "train/picture_archive.h"

#define PATH_BYTES 4096
#define SIDE_MAX   65536 /* of a picture in an IDX file */

/* ---- IDX ------------------------------------------------------------------------------------- */

static uint32_t big_endian(const unsigned char *at)
{
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

corvid_status cv_idx_parse(const unsigned char *bytes, size_t size, const char *name, size_t dims,
                           cv_idx *out, corvid_error *err)
{
    const size_t head = 4 + 4 * dims;
    const uint32_t magic = 0x0800u + (uint32_t)dims; /* bytes, of so many dimensions */
    size_t each, total;
    *out = (cv_idx){ .n = 0 };
    if (size >= 4 && big_endian(bytes) != magic)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: begins with %08x (offset 0), expected %08x: an IDX file of bytes "
                       "of %zu dimension%s",
                       name, big_endian(bytes), magic, dims, dims == 1 ? "" : "s");
    if (size < head)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: ends at byte %zu, expected the %zu bytes of an IDX file's head; "
                       "get the file again",
                       name, size, head);
    const cv_idx idx = { .n = big_endian(bytes + 4),
                         .rows = dims == 3 ? big_endian(bytes + 8) : 1,
                         .columns = dims == 3 ? big_endian(bytes + 12) : 1,
                         .data = bytes + head };
    if (idx.rows < 1 || idx.columns < 1 || idx.rows > SIDE_MAX || idx.columns > SIDE_MAX)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: has pictures of %zu x %zu pixels (offset 8), expected sides of 1 "
                       "to %d",
                       name, idx.rows, idx.columns, SIDE_MAX);
    if (!cv_mul_size(idx.rows, idx.columns, &each) || !cv_mul_size(each, idx.n, &total) ||
        total != size - head)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: says it has %zu of %zu x %zu bytes (offset 4), but %zu bytes "
                       "follow at offset %zu; the file is cut short or damaged, get it again",
                       name, idx.n, idx.rows, idx.columns, size - head, head);
    *out = idx;
    return CORVID_OK;
}

/* ---- MNIST ----------------------------------------------------------------------------------- */

/* The pictures' and labels' names of one part: PREFIX, then one of these, then "-images..." */
typedef struct idx_pair {
    char images[PATH_BYTES], labels[PATH_BYTES];
    bool there;
} idx_pair;

static corvid_status add_digits(cv_picture_list *list, const idx_pair *pair, const cv_idx *images,
                                const cv_idx *labels, cv_picture_part part, corvid_error *err)
{
    const size_t size = images->rows * images->columns;
    const char *name = cv_arena_text(&list->arena, pair->images, strlen(pair->images));
    int32_t target[256];
    size_t n_classes = 0;
    if (!name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the list of pictures");
    for (size_t i = 0; i < labels->n; i++)
        if (labels->data[i] >= n_classes) n_classes = labels->data[i] + (size_t)1;
    for (size_t i = 0; i < n_classes; i++) {
        char digits[24];
        snprintf(digits, sizeof digits, "%zu", i);
        CV_TRY(cv_picture_list_class(list, digits, &target[i], err));
    }
    for (size_t i = 0; i < images->n; i++) {
        const cv_picture_sample sample = { .name = name,
                                           .path = "",
                                           .bytes = images->data + i * size,
                                           .n = size,
                                           .width = (uint32_t)images->columns,
                                           .height = (uint32_t)images->rows,
                                           .target = target[labels->data[i]],
                                           .part = (uint8_t)part,
                                           .form = CV_FORM_GREY };
        CV_TRY(cv_picture_list_add(list, sample, err));
    }
    return CORVID_OK;
}

static corvid_status read_pair(cv_picture_list *list, const idx_pair *pair, cv_picture_part part,
                               corvid_error *err)
{
    const unsigned char *bytes;
    size_t n;
    cv_idx images, labels;
    CV_TRY(cv_archive_read_file(list, pair->images, &bytes, &n, err));
    CV_TRY(cv_idx_parse(bytes, n, pair->images, 3, &images, err));
    CV_TRY(cv_archive_read_file(list, pair->labels, &bytes, &n, err));
    CV_TRY(cv_idx_parse(bytes, n, pair->labels, 1, &labels, err));
    if (images.n != labels.n)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: has %zu pictures (offset 4), but there are %zu labels in %.512s; "
                       "expected as many: are both of the same set?",
                       pair->images, images.n, labels.n, pair->labels);
    return add_digits(list, pair, &images, &labels, part, err);
}

/* FOLDER/PREFIX PART -images-idx3-ubyte, or with a dot before idx, or packed. */
static bool try_names(const char *folder, const char *prefix, int prefix_length, const char *part,
                      idx_pair *pair)
{
    static const char *const ends[][2] = {
        { "-images-idx3-ubyte", "-labels-idx1-ubyte" },
        { "-images.idx3-ubyte", "-labels.idx1-ubyte" },
        { "-images-idx3-ubyte.gz", "-labels-idx1-ubyte.gz" },
        { "-images.idx3-ubyte.gz", "-labels.idx1-ubyte.gz" },
    };
    struct stat info;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        const int n = snprintf(pair->images, PATH_BYTES, "%s/%.*s%s%s", folder, prefix_length,
                               prefix, part, ends[i][0]);
        const int m = snprintf(pair->labels, PATH_BYTES, "%s/%.*s%s%s", folder, prefix_length,
                               prefix, part, ends[i][1]);
        pair->there = n > 0 && m > 0 && n < PATH_BYTES && m < PATH_BYTES &&
                      stat(pair->images, &info) == 0 && S_ISREG(info.st_mode) &&
                      stat(pair->labels, &info) == 0 && S_ISREG(info.st_mode);
        if (pair->there) return true;
    }
    return false;
}

/* What stands before "train-images" in the name of a file (EMNIST has several such sets). */
static bool train_prefix(const char *name, int *length)
{
    const char *at = strstr(name, "train-images");
    if (!at || !strstr(at, "idx3-ubyte")) return false;
    *length = (int)(at - name);
    return true;
}

/* The prefix of the set in a folder, in `prefix`; two different ones are an error. */
static corvid_status find_prefix(const char *folder, char prefix[256], bool *found,
                                 corvid_error *err)
{
    corvid_status status = CORVID_OK;
    DIR *dir = opendir(folder);
    *found = false;
    if (!dir)
        return cv_fail(err, CORVID_E_FILE, "%.512s: cannot be read: %s; check the permissions",
                       folder, strerror(errno));
    for (const struct dirent *entry; status == CORVID_OK && (entry = readdir(dir));) {
        int length;
        if (entry->d_name[0] == '.' || !train_prefix(entry->d_name, &length)) continue;
        if (*found &&
            (strncmp(prefix, entry->d_name, (size_t)length) != 0 || prefix[length] != '\0'))
            status = cv_fail(err, CORVID_E_ARGUMENT,
                             "%.512s: has several sets of IDX files (\"%.100s\" and another); "
                             "expected one, put it into a folder of its own",
                             folder, entry->d_name);
        memcpy(prefix, entry->d_name, (size_t)length);
        prefix[length] = '\0';
        *found = true;
    }
    closedir(dir);
    return status;
}

static corvid_status read_mnist(cv_picture_list *list, const char *folder, bool *found,
                                corvid_error *err)
{
    char prefix[256];
    idx_pair train, test;
    CV_TRY(find_prefix(folder, prefix, found, err));
    if (!*found) return CORVID_OK;
    const int n = (int)strlen(prefix);
    if (!try_names(folder, prefix, n, "train", &train))
        return cv_fail(err, CORVID_E_FILE,
                       "%.512s: has the pictures of an IDX set but not its labels; expected "
                       "%strain-labels-idx1-ubyte or the same with .gz",
                       folder, prefix);
    if (!try_names(folder, prefix, n, "t10k", &test)) try_names(folder, prefix, n, "test", &test);
    CV_TRY(read_pair(list, &train, test.there ? CV_PART_TRAIN : CV_PART_ANY, err));
    return test.there ? read_pair(list, &test, CV_PART_VALIDATION, err) : CORVID_OK;
}

/* ---- CIFAR ----------------------------------------------------------------------------------- */

enum { CIFAR_SIDE = 32, CIFAR_PIXELS = 3 * CIFAR_SIDE * CIFAR_SIDE, CIFAR_CLASSES = 256 };

/* How a set lays out its files. */
typedef struct cifar {
    const char *classes; /* the file with their names, one a line */
    const char *files[7];
    size_t n_train, n_files; /* the last is for validation */
    size_t labels;           /* bytes before the pixels, of which the last counts */
} cifar;

static const cifar CIFARS[] = {
    { .classes = "batches.meta.txt",
      .files = { "data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin",
                 "data_batch_5.bin", "test_batch.bin" },
      .n_train = 5,
      .n_files = 6,
      .labels = 1 },
    { .classes = "fine_label_names.txt",
      .files = { "train.bin", "test.bin" },
      .n_train = 1,
      .n_files = 2,
      .labels = 2 },
};

static corvid_status cifar_file(cv_picture_list *list, const char *folder, const char *file,
                                char path[PATH_BYTES], const unsigned char **bytes, size_t *n,
                                corvid_error *err)
{
    const int written = snprintf(path, PATH_BYTES, "%s/%s", folder, file);
    if (written < 0 || written >= PATH_BYTES)
        return cv_fail(err, CORVID_E_FILE, "%.512s: the path is too long", folder);
    return cv_archive_read_file(list, path, bytes, n, err);
}

static corvid_status cifar_classes(cv_picture_list *list, const char *folder, const cifar *set,
                                   int32_t target[CIFAR_CLASSES], size_t *n_classes,
                                   corvid_error *err)
{
    char path[PATH_BYTES], name[256];
    const unsigned char *bytes;
    size_t n;
    CV_TRY(cifar_file(list, folder, set->classes, path, &bytes, &n, err));
    *n_classes = 0;
    for (size_t at = 0; at < n && *n_classes < CIFAR_CLASSES;) {
        const unsigned char *end = memchr(bytes + at, '\n', n - at);
        size_t length = end ? (size_t)(end - bytes) - at : n - at;
        const unsigned char *line = bytes + at;
        at += length + 1;
        if (length > 0 && line[length - 1] == '\r') length--;
        if (length == 0) continue;
        if (length >= sizeof name || memchr(line, 0, length))
            return cv_fail(err, CORVID_E_FORMAT,
                           "%.512s: the line that ends at byte %zu is no name of a class; "
                           "expected one a line",
                           path, at);
        memcpy(name, line, length);
        name[length] = '\0';
        CV_TRY(cv_picture_list_class(list, name, &target[(*n_classes)++], err));
    }
    return CORVID_OK;
}

static corvid_status read_cifar_file(cv_picture_list *list, const char *folder, const cifar *set,
                                     size_t k, const int32_t *target, size_t n_classes,
                                     corvid_error *err)
{
    const size_t size = set->labels + CIFAR_PIXELS;
    char path[PATH_BYTES];
    const unsigned char *bytes;
    size_t n;
    CV_TRY(cifar_file(list, folder, set->files[k], path, &bytes, &n, err));
    const char *name = cv_arena_text(&list->arena, path, strlen(path));
    if (!name) return cv_fail(err, CORVID_E_MEMORY, "out of memory: the list of pictures");
    if (n == 0 || n % size != 0)
        return cv_fail(err, CORVID_E_FORMAT,
                       "%.512s: has %zu bytes, expected pictures of %zu each; the file is cut "
                       "short or damaged, get it again",
                       path, n, size);
    for (size_t at = 0; at < n; at += size) {
        const size_t label = bytes[at + set->labels - 1];
        if (label >= n_classes)
            return cv_fail(err, CORVID_E_FORMAT,
                           "%.512s: has the class %zu at offset %zu, expected less than %zu as in "
                           "%s",
                           path, label, at + set->labels - 1, n_classes, set->classes);
        const cv_picture_sample sample = {
            .name = name,
            .path = "",
            .bytes = bytes + at + set->labels,
            .n = CIFAR_PIXELS,
            .width = CIFAR_SIDE,
            .height = CIFAR_SIDE,
            .target = target[label],
            .part = k < set->n_train ? CV_PART_TRAIN : CV_PART_VALIDATION,
            .form = CV_FORM_PLANES,
        };
        CV_TRY(cv_picture_list_add(list, sample, err));
    }
    return CORVID_OK;
}

/* Are the names of the classes there, and the first file? */
static bool is_cifar(const char *folder, const cifar *set)
{
    char path[PATH_BYTES];
    struct stat info;
    const char *const needed[] = { set->classes, set->files[0] };
    for (size_t i = 0; i < 2; i++) {
        const int n = snprintf(path, sizeof path, "%s/%s", folder, needed[i]);
        if (n < 0 || n >= PATH_BYTES || stat(path, &info) != 0 || !S_ISREG(info.st_mode))
            return false;
    }
    return true;
}

static corvid_status read_cifar(cv_picture_list *list, const char *folder, const cifar *set,
                                corvid_error *err)
{
    int32_t target[CIFAR_CLASSES];
    size_t n_classes;
    CV_TRY(cifar_classes(list, folder, set, target, &n_classes, err));
    for (size_t k = 0; k < set->n_files; k++)
        CV_TRY(read_cifar_file(list, folder, set, k, target, n_classes, err));
    return CORVID_OK;
}

corvid_status cv_raw_read_folder(cv_picture_list *list, const char *folder, bool *found,
                                 corvid_error *err)
{
    for (size_t i = 0; i < sizeof CIFARS / sizeof CIFARS[0]; i++)
        if (is_cifar(folder, &CIFARS[i])) {
            *found = true;
            return read_cifar(list, folder, &CIFARS[i], err);
        }
    return read_mnist(list, folder, found, err);
}

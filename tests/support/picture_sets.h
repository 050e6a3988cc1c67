/* picture_sets.h - small sets of pictures for tests: folders, archives, IDX files. */
#ifndef TEST_PICTURE_SETS_H
#define TEST_PICTURE_SETS_H

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <sys/stat.h>

#include "picture_bytes.h"

/* A file to be put into a folder or an archive. */
typedef struct set_file {
    const char *path; /* below the folder */
    file_bytes file;
} set_file;

/* A WebP without loss of smooth pixels that differ with `kind`. */
static inline file_bytes set_picture(size_t width, size_t height, size_t kind)
{
    unsigned char *pixels = pixels_of(SMOOTH, width, height, 3);
    for (size_t i = 0; i < 3 * width * height; i++)
        pixels[i] = (unsigned char)(pixels[i] + 11 * kind);
    file_bytes file = webp_lossless(pixels, width, height, 3);
    free(pixels);
    return file;
}

static inline void make_folders(const char *path)
{
    char part[1024];
    for (size_t i = 1; path[i]; i++) {
        if (path[i] != '/') continue;
        memcpy(part, path, i);
        part[i] = '\0';
        mkdir(part, 0755);
    }
}

static inline void set_as_folder(const char *folder, const set_file *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char path[1024];
        snprintf(path, sizeof path, "%s/%s", folder, files[i].path);
        make_folders(path);
        test_write_file(path, files[i].file.bytes, files[i].file.n);
    }
}

/* A .zip, or a .tar by gzip, by the end of the path. */
static inline void set_as_archive(const char *path, const set_file *files, size_t n)
{
    struct archive *a = archive_write_new();
    assert_non_null(a);
    if (strstr(path, ".zip")) {
        assert_int_equal(archive_write_set_format_zip(a), ARCHIVE_OK);
    } else {
        assert_int_equal(archive_write_set_format_pax_restricted(a), ARCHIVE_OK);
        if (strstr(path, "gz")) assert_int_equal(archive_write_add_filter_gzip(a), ARCHIVE_OK);
    }
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    for (size_t i = 0; i < n; i++) {
        struct archive_entry *entry = archive_entry_new();
        archive_entry_set_pathname(entry, files[i].path);
        archive_entry_set_size(entry, (la_int64_t)files[i].file.n);
        archive_entry_set_filetype(entry, AE_IFREG);
        archive_entry_set_perm(entry, 0644);
        assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
        assert_int_equal(archive_write_data(a, files[i].file.bytes, files[i].file.n),
                         files[i].file.n);
        archive_entry_free(entry);
    }
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

/* The same bytes, packed. */
static inline void write_gzip(const char *path, file_bytes file)
{
    struct archive *a = archive_write_new();
    struct archive_entry *entry = archive_entry_new();
    assert_int_equal(archive_write_set_format_raw(a), ARCHIVE_OK);
    assert_int_equal(archive_write_add_filter_gzip(a), ARCHIVE_OK);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    archive_entry_set_filetype(entry, AE_IFREG);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    assert_int_equal(archive_write_data(a, file.bytes, file.n), file.n);
    archive_entry_free(entry);
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

/* IDX: pixel p of picture i is i + p; label i is i % classes. */
static inline file_bytes idx_images(size_t n, size_t rows, size_t columns)
{
    file_bytes file = { 0 };
    put_big(&file, 0x803, 4);
    put_big(&file, (uint32_t)n, 4);
    put_big(&file, (uint32_t)rows, 4);
    put_big(&file, (uint32_t)columns, 4);
    for (size_t i = 0; i < n; i++)
        for (size_t p = 0; p < rows * columns; p++)
            put_big(&file, (uint32_t)(i + p) & 255, 1);
    return file;
}

static inline file_bytes idx_labels(size_t n, size_t n_classes)
{
    file_bytes file = { 0 };
    put_big(&file, 0x801, 4);
    put_big(&file, (uint32_t)n, 4);
    for (size_t i = 0; i < n; i++)
        put_big(&file, (uint32_t)(i % n_classes), 1);
    return file;
}

#endif

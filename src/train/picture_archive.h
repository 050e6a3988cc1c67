/* picture_archive.h - pictures out of archives, and files unpacked, by libarchive. */
#ifndef CV_PICTURE_ARCHIVE_H
#define CV_PICTURE_ARCHIVE_H

#include "train/picture_sources.h"

bool cv_archive_named(const char *path);

/* Adds the pictures in an archive, encoded; `path` of each is all of its path. */
corvid_status cv_archive_read_pictures(cv_picture_list *list, const char *path, corvid_error *err);

/* A whole file, unpacked where it is a .gz, .bz2 or .xz, into the list's bytes. */
corvid_status cv_archive_read_file(cv_picture_list *list, const char *path,
                                   const unsigned char **bytes, size_t *n, corvid_error *err);

#endif

/* input.c - reads a plain file with pread, or a block of memory, at any offset.
 *
 * It keeps no position and no buffer, so one input serves several threads.  It does not read
 * pipes, devices or folders: every format here needs random access. */
#include "base/input.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"

/* One pread takes at most this much: Linux itself stops short of 2 GiB. */
#define READ_AT_ONCE ((size_t)1 << 30)

static void set_name(cv_input *in, const char *path)
{
    size_t n = strlen(path), room = sizeof in->path - 1;
    if (n <= room) {
        memcpy(in->path, path, n + 1);
        return;
    }
    const char *tail = path + n - (room - 3);
    while (((unsigned char)*tail & 0xC0) == 0x80) /* start at a whole character */
        tail++;
    snprintf(in->path, sizeof in->path, "...%s", tail);
}

static const char *kind_of(mode_t mode)
{
    if (S_ISDIR(mode)) return "a folder";
    if (S_ISFIFO(mode)) return "a pipe";
    if (S_ISSOCK(mode)) return "a socket";
    return "a device";
}

static const char *hint_for(int error)
{
    switch (error) {
    case ENOENT: return "check the spelling and the folder";
    case EACCES: return "check its permissions";
    case ENOTDIR: return "a part of the path is not a folder";
    case EMFILE:
    case ENFILE: return "close some files, or raise the limit with ulimit -n";
    default: return "check that the file can be read";
    }
}

corvid_status cv_input_open(cv_input *in, const char *path, corvid_error *err)
{
    *in = (cv_input){ .fd = -1 };
    set_name(in, path);
    /* O_NONBLOCK: opening a pipe that nobody writes to would wait for ever. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) {
        int error = errno;
        return cv_fail(err, CORVID_E_FILE, "%s: cannot be opened: %s; %s", in->path,
                       strerror(error), hint_for(error));
    }
    struct stat info;
    if (fstat(fd, &info) != 0) {
        int error = errno;
        close(fd);
        return cv_fail(err, CORVID_E_FILE, "%s: cannot be examined: %s; %s", in->path,
                       strerror(error), hint_for(error));
    }
    if (!S_ISREG(info.st_mode)) {
        close(fd);
        return cv_fail(err, CORVID_E_FILE,
                       "%s: is %s, expected a plain file; give the path of the file itself",
                       in->path, kind_of(info.st_mode));
    }
    in->fd = fd;
    in->size = (uint64_t)info.st_size;
    return CORVID_OK;
}

void cv_input_memory(cv_input *in, const void *bytes, size_t n, const char *name)
{
    *in = (cv_input){ .fd = -1, .size = n, .bytes = bytes };
    set_name(in, name ? name : "memory");
}

void cv_input_close(cv_input *in)
{
    if (in->fd >= 0) close(in->fd);
    in->fd = -1;
    in->bytes = NULL;
    in->size = 0;
}

static corvid_status fail_short(const cv_input *in, uint64_t end, uint64_t offset, size_t n,
                                corvid_error *err)
{
    return cv_fail(err, CORVID_E_FORMAT,
                   "%s: ends at byte %llu, wanted %zu bytes at %llu; the file is cut short or "
                   "damaged, get it again",
                   in->path, (unsigned long long)end, n, (unsigned long long)offset);
}

static corvid_status read_file(const cv_input *in, uint64_t offset, unsigned char *dst, size_t n,
                               corvid_error *err)
{
    size_t done = 0;
    while (done < n) {
        size_t want = n - done < READ_AT_ONCE ? n - done : READ_AT_ONCE;
        ssize_t got = pread(in->fd, dst + done, want, (off_t)(offset + done));
        if (got > 0) {
            done += (size_t)got;
        } else if (got == 0) { /* it has shrunk since it was opened */
            struct stat info;
            uint64_t end = offset + done;
            if (fstat(in->fd, &info) == 0) end = (uint64_t)info.st_size;
            return fail_short(in, end, offset, n, err);
        } else if (errno != EINTR) {
            int error = errno;
            return cv_fail(err, CORVID_E_FILE,
                           "%s: cannot read %zu bytes at %llu: %s; check the disk", in->path, n,
                           (unsigned long long)offset, strerror(error));
        }
    }
    return CORVID_OK;
}

corvid_status cv_input_read(const cv_input *in, uint64_t offset, void *dst, size_t n,
                            corvid_error *err)
{
    if (!cv_range_within(offset, n, in->size)) return fail_short(in, in->size, offset, n, err);
    if (n == 0) return CORVID_OK;
    if (in->fd >= 0) return read_file(in, offset, dst, n, err);
    memcpy(dst, in->bytes + offset, n);
    return CORVID_OK;
}

corvid_status cv_input_read_all(const cv_input *in, const corvid_allocator *mem, size_t limit,
                                char **out, size_t *n, corvid_error *err)
{
    *out = NULL;
    *n = 0;
    size_t size, room;
    if (in->size > limit || !cv_u64_to_size(in->size, &size) || !cv_add_size(size, 1, &room))
        return cv_fail(err, CORVID_E_FORMAT,
                       "%s: has %llu bytes, expected at most %zu; is this the right file?",
                       in->path, (unsigned long long)in->size, limit);
    void *text;
    CV_TRY(cv_alloc_or_fail(mem, room, 1, in->path, &text, err));
    corvid_status status = cv_input_read(in, 0, text, size, err);
    if (status != CORVID_OK) {
        cv_free(mem, text);
        return status;
    }
    *out = text;
    (*out)[size] = '\0';
    *n = size;
    return CORVID_OK;
}

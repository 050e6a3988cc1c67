/* output.c - writes beside the target, then renames; see output.h for the promise.
 *
 * A process killed in the middle leaves a temporary ".NAME.XXXXXX" behind and the target as it
 * was.  One cv_output belongs to one thread. */
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/checked.h"

/* ---- making system calls fail, in tests ------------------------------------------------------ */

#ifdef CV_TESTING
static _Thread_local int calls_made, failing_call;

int cv_output_fail_at(int nth_call)
{
    int made = calls_made;
    calls_made = 0;
    failing_call = nth_call;
    return made;
}

static bool injected_failure(void)
{
    if (++calls_made != failing_call) return false;
    errno = ENOSPC;
    return true;
}
#else
static bool injected_failure(void)
{
    return false;
}
#endif

/* ---- messages ------------------------------------------------------------------------------- */

static void set_name(cv_output *out, const char *path)
{
    size_t n = strlen(path), room = sizeof out->name - 1;
    if (n <= room) {
        memcpy(out->name, path, n + 1);
        return;
    }
    const char *tail = path + n - (room - 3);
    while (((unsigned char)*tail & 0xC0) == 0x80) /* start at a whole character */
        tail++;
    snprintf(out->name, sizeof out->name, "...%s", tail);
}

static const char *hint_for(int error)
{
    switch (error) {
    case ENOSPC:
    case EDQUOT: return "free some space, or write to another disk";
    case EACCES:
    case EPERM:
    case EROFS: return "check the folder's permissions, or write elsewhere";
    case ENOENT:
    case ENOTDIR: return "make the folder first";
    case ENAMETOOLONG: return "choose a shorter name";
    default: return "check the disk, or write elsewhere";
    }
}

static corvid_status fail_write(const cv_output *out, const char *what, int error,
                                corvid_error *err)
{
    return cv_fail(err, CORVID_E_WRITE, "%s: %s: %s; the old file, if any, is untouched; %s",
                   out->name, what, strerror(error), hint_for(error));
}

/* ---- creating ------------------------------------------------------------------------------- */

/* Fills out->path with what `path` means after links, and *mode with its permissions if there. */
static corvid_status resolve_target(cv_output *out, const char *path, mode_t *mode,
                                    corvid_error *err)
{
    char resolved[PATH_MAX];
    if (strlen(path) >= sizeof out->path) return fail_write(out, "bad path", ENAMETOOLONG, err);
    if (!path[0]) return cv_fail(err, CORVID_E_ARGUMENT, "the path of a file to write is empty");
    memcpy(out->path, path, strlen(path) + 1);

    struct stat info;
    if (stat(path, &info) != 0) return CORVID_OK; /* a new file; creating it tells what is wrong */
    if (!S_ISREG(info.st_mode))
        return cv_fail(err, CORVID_E_WRITE,
                       "%s: is not a plain file and cannot be replaced by one; give another path",
                       out->name);
    *mode = info.st_mode & 0777;
    /* Renaming over a link would replace the link and leave the file it names stale. */
    if (realpath(path, resolved)) memcpy(out->path, resolved, strlen(resolved) + 1);
    return CORVID_OK;
}

/* ".NAME.XXXXXX" in the target's folder; NAME is cut so that the whole stays a legal name. */
static void pick_temporary(cv_output *out)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const char *slash = strrchr(out->path, '/');
    const char *name = slash ? slash + 1 : out->path;
    uint64_t chance;
    if (getrandom(&chance, sizeof chance, GRND_NONBLOCK) != (ssize_t)sizeof chance) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        chance = (uint64_t)t.tv_nsec * UINT64_C(0x9E3779B97F4A7C15) ^ (uint64_t)getpid() << 32;
    }
    char suffix[7];
    for (size_t i = 0; i < 6; i++, chance /= 36)
        suffix[i] = letters[chance % 36];
    suffix[6] = '\0';
    snprintf(out->temporary, sizeof out->temporary, "%.*s.%.200s.%s", (int)(name - out->path),
             out->path, name, suffix);
}

/* Opens a temporary that was not there before.  open() with mode 0666 rather than mkstemp: the
 * system applies the umask, which cannot be read without changing it for other threads. */
static int open_temporary(cv_output *out)
{
    for (int tries = 0; tries < 100; tries++) {
        pick_temporary(out);
        if (injected_failure()) return -1;
        int fd = open(out->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

corvid_status cv_output_create(cv_output *out, const char *path, corvid_error *err)
{
    out->path[0] = out->temporary[0] = '\0';
    out->fd = -1;
    out->written = 0;
    out->pending = 0;
    out->checksum = NULL;
    set_name(out, path);

    mode_t mode = 0;
    CV_TRY(resolve_target(out, path, &mode, err));
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return cv_fail(err, CORVID_E_MEMORY, "out of memory: the checksum of %s", out->name);
    XXH3_64bits_reset(state);
    out->checksum = state;
    out->fd = open_temporary(out);
    if (out->fd < 0) {
        int error = errno;
        out->temporary[0] = '\0';
        cv_output_discard(out);
        return fail_write(out, "cannot create a file in its folder", error, err);
    }
    /* A file that is replaced keeps its permissions; where that is refused the umask decides. */
    if (mode) (void)fchmod(out->fd, mode);
    return CORVID_OK;
}

/* ---- writing -------------------------------------------------------------------------------- */

static corvid_status write_out(cv_output *out, const unsigned char *bytes, size_t n,
                               corvid_error *err)
{
    while (n > 0) {
        size_t part = n < (size_t)1 << 30 ? n : (size_t)1 << 30;
        ssize_t done = injected_failure() ? -1 : write(out->fd, bytes, part);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) return fail_write(out, "cannot write", done < 0 ? errno : EIO, err);
        bytes += done;
        n -= (size_t)done;
    }
    return CORVID_OK;
}

static corvid_status flush_buffer(cv_output *out, corvid_error *err)
{
    size_t n = out->pending;
    out->pending = 0;
    return write_out(out, out->buffer, n, err);
}

corvid_status cv_output_write(cv_output *out, const void *bytes, size_t n, corvid_error *err)
{
    if (n == 0) return CORVID_OK;
    XXH3_64bits_update(out->checksum, bytes, n);
    out->written += n;
    if (n > sizeof out->buffer - out->pending) CV_TRY(flush_buffer(out, err));
    if (n >= sizeof out->buffer) return write_out(out, bytes, n, err);
    memcpy(out->buffer + out->pending, bytes, n);
    out->pending += n;
    return CORVID_OK;
}

uint64_t cv_output_checksum(const cv_output *out)
{
    return out->checksum ? XXH3_64bits_digest(out->checksum) : 0;
}

/* ---- committing ----------------------------------------------------------------------------- */

static int open_folder(const cv_output *out)
{
    char folder[CV_OUTPUT_PATH];
    const char *slash = strrchr(out->path, '/');
    size_t n = slash ? (size_t)(slash - out->path) + 1 : 0;
    memcpy(folder, out->path, n);
    folder[n] = '\0';
    if (injected_failure()) return -1;
    return open(n ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static bool close_file(cv_output *out)
{
    int fd = out->fd;
    out->fd = -1;
    bool failed = injected_failure();
    int error = errno;
    if (close(fd) != 0) return false;
    errno = error;
    return !failed;
}

/* Flushes the renamed entry.  Some file systems cannot flush a folder and say so: not an error. */
static bool sync_folder(int folder)
{
    bool done = !injected_failure() && fsync(folder) == 0;
    return done || errno == EINVAL || errno == ENOTSUP || errno == EROFS;
}

corvid_status cv_output_commit(cv_output *out, corvid_error *err)
{
    int folder = -1;
    corvid_status status = flush_buffer(out, err);
    if (status != CORVID_OK) goto fail;
    if (injected_failure() || fsync(out->fd) != 0) {
        status = fail_write(out, "cannot flush to disk", errno, err);
        goto fail;
    }
    if (!close_file(out)) {
        status = fail_write(out, "cannot close", errno, err);
        goto fail;
    }
    folder = open_folder(out); /* before the rename, while failing still changes nothing */
    if (folder < 0 && errno != EACCES) { /* a folder may be writable and not readable */
        status = fail_write(out, "cannot open its folder", errno, err);
        goto fail;
    }
    if (injected_failure() || rename(out->temporary, out->path) != 0) {
        status = fail_write(out, "cannot take its place", errno, err);
        goto fail;
    }
    out->temporary[0] = '\0'; /* it is the target now: nothing to remove */
    if (folder >= 0 && !sync_folder(folder))
        status = cv_fail(err, CORVID_E_WRITE,
                         "%s: written in full, but its folder cannot be flushed to disk: %s; after "
                         "a power cut the file before it may be back; check the disk",
                         out->name, strerror(errno));
fail:
    if (folder >= 0) close(folder);
    cv_output_discard(out);
    return status;
}

void cv_output_discard(cv_output *out)
{
    if (!out->checksum) return; /* zeroed, committed, or discarded before */
    if (out->fd >= 0) close(out->fd);
    out->fd = -1;
    if (out->temporary[0]) (void)unlink(out->temporary);
    out->temporary[0] = '\0';
    XXH3_freeState(out->checksum);
    out->checksum = NULL;
    out->pending = 0;
}

/* showing.h - shows many pictures to a vision model, a batch at a time.
 *
 * While the model works on one batch, a thread reads and frames the next.  A picture that cannot be
 * read is told and left out; the others go on. */
#ifndef CLI_SHOWING_H
#define CLI_SHOWING_H

#include "pictures.h"
#include "tensor_file.h"

/* What a verb wants of each picture, and what became of them. */
typedef struct showing {
    corvid_model *model;
    const int *wanted; /* layers, as corvid_see takes them */
    size_t n_wanted;
    size_t batch;
    const char *label; /* of the progress bar */
    bool prints;       /* results go to stdout as they come: no bar on the same terminal */

    /* Points the outputs of a view at memory of slot 0 .. batch-1; a picture has height x width. */
    void (*want)(void *ctx, size_t slot, size_t height, size_t width, corvid_view *view);
    /* The outputs of picture i are there, in that slot; pictures come in order.  0, or an exit code
     * after a message: nothing more is shown. */
    int (*take)(void *ctx, size_t slot, size_t i);
    void *ctx;

    size_t n_failed; /* pictures that gave nothing */
    int code;        /* of the first of them */
} showing;

/* Shows all pictures of a list, framed.  0, or an exit code after a message when it had to stop. */
int show_pictures(showing *s, const picture_list *list, const picture_args *args,
                  const corvid_framing *framing);

/* The same for pictures as numbers; the i of take is the row of the tensor. */
int show_tensor(showing *s, tensor_in *tensor);

#endif

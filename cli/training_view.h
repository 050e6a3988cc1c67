/* training_view.h - what is shown and written while a model learns: a bar with the loss and the time
 * that is left, a line at each evaluation, log.jsonl, loss.svg and accuracy.svg. */
#ifndef CLI_TRAINING_VIEW_H
#define CLI_TRAINING_VIEW_H

#include "figure.h"
#include "term.h"

typedef struct training_view {
    const char *folder;
    const char *unit; /* "tokens", "pictures": what is counted */
    bool json;        /* each step as a line on stdout */
    double seconds;   /* the run ends after so many; 0: with its last step */

    progress bar;
    FILE *log;
    figure_line losses, validations, accuracies;
    double smooth; /* the loss, smoothed */
    corvid_training_report first;
    bool begun;
} training_view;

/* Begins with `reading` on the bar.  Makes the folder; 0, or 6 after a message. */
int training_view_open(training_view *view, const char *reading);

/* The callbacks of a run; the view is their context. */
void training_view_report(void *view, const corvid_training_report *report);
void training_view_progress(void *view, uint64_t done, uint64_t total);

/* Draws the curves and frees everything; code, or 6 after a message. */
int training_view_close(training_view *view, int code);

#endif

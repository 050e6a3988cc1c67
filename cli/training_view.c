/* training_view.c - what is shown and written while a model learns; see training_view.h.
 *
 * The log is one for the whole of a run, however often it was stopped: what steps behind the one that
 * it goes on from had written is taken out again, and the curves begin where the log does. */
#include "training_view.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "textio.h"

enum { PATH_ROOM = 16 };

static char *path_in(const char *folder, const char *name)
{
    char *path = cli_array(strlen(folder) + strlen(name) + PATH_ROOM, 1);
    sprintf(path, "%s/%s", folder, name);
    return path;
}

static uint64_t rows_of(const corvid_training_report *r)
{
    return r->tokens + r->pictures;
}

/* ---- The log --------------------------------------------------------------------------------- */

static void log_step(const training_view *v, FILE *to, const corvid_training_report *r)
{
    if (!to) return;
    json_t *line = json_pack("{s:I, s:f, s:f, s:f, s:I, s:f}", "step", (json_int_t)r->step, "loss",
                             r->loss, "lr", r->learning_rate, "grad_norm", r->gradient_norm,
                             v->unit, (json_int_t)rows_of(r), "seconds", r->seconds);
    if (!isnan(r->validation)) json_object_set_new(line, "validation", json_real(r->validation));
    if (!isnan(r->accuracy)) json_object_set_new(line, "accuracy", json_real(r->accuracy));
    if (r->saved) json_object_set_new(line, "saved", json_true());
    char *text = json_dumps(line, JSON_COMPACT);
    if (text) fprintf(to, "%s\n", text);
    fflush(to);
    free(text);
    json_decref(line);
}

static void add_point(figure_line *to, double step, const json_t *line, const char *name)
{
    const json_t *value = json_object_get(line, name);
    if (json_is_number(value)) figure_add(to, step, json_number_value(value));
}

/* A line of the log of steps before `step`; false for any other, and for half a one. */
static bool take_line(training_view *v, const char *text, uint64_t step)
{
    json_t *line = json_loads(text, 0, NULL);
    const json_t *number = json_object_get(line, "step");
    const json_int_t at = json_is_integer(number) ? json_integer_value(number) : -1;
    const bool taken = at >= 0 && (uint64_t)at < step;
    if (taken) {
        add_point(&v->losses, (double)at, line, "loss");
        add_point(&v->validations, (double)at, line, "validation");
        add_point(&v->accuracies, (double)at, line, "accuracy");
    }
    json_decref(line);
    return taken;
}

/* Rewrites the log with the lines of steps before `step`, and opens it to go on behind them. */
static void take_up_log(training_view *v, uint64_t step)
{
    char *path = path_in(v->folder, "log.jsonl"), *text = NULL;
    size_t room = 0;
    new_file kept;
    FILE *old = fopen(path, "r");
    if (v->log) fclose(v->log);
    v->log = NULL;
    if (old && new_file_open(&kept, path) == 0) {
        while (getline(&text, &room, old) >= 0)
            if (take_line(v, text, step)) fputs(text, kept.file);
        if (new_file_keep(&kept) == 0) v->log = fopen(path, "a");
    }
    if (!v->log) warn("%s: cannot be written; this run keeps no log", path);
    if (old) fclose(old);
    free(text);
    free(path);
}

/* ---- What is shown --------------------------------------------------------------------------- */

static double per_second(const training_view *v, const corvid_training_report *r)
{
    const double seconds = r->seconds - v->first.seconds;
    return seconds > 0 ? (double)(rows_of(r) - rows_of(&v->first)) / seconds : 0;
}

/* How long it will take from here; 0: not known yet. */
static double seconds_left(const training_view *v, const corvid_training_report *r)
{
    if (r->step == v->first.step) return 0;
    const double each = (r->seconds - v->first.seconds) / (double)(r->step - v->first.step);
    const double left = each * (double)(r->steps - r->step);
    const double limit = v->seconds > r->seconds ? v->seconds - r->seconds : 0;
    return v->seconds > 0 && limit < left ? limit : left;
}

/* "12 s", "3 min 5 s", "2 h 10 min" into out. */
static const char *time_text(double seconds, char out[32])
{
    const unsigned long s = seconds < 1e9 ? (unsigned long)(seconds + 0.5) : 1000000000ul;
    if (s < 60)
        snprintf(out, 32, "%lu s", s);
    else if (s < 3600)
        snprintf(out, 32, "%lu min %lu s", s / 60, s % 60);
    else
        snprintf(out, 32, "%lu h %lu min", s / 3600, s % 3600 / 60);
    return out;
}

/* The bar reckons with the time since it began: that is set so that it comes to ours, whatever was
 * done before this run and between two steps. */
static void show_bar(training_view *v, const corvid_training_report *r)
{
    char spark[40];
    const double share = (double)r->step / (double)r->steps, left = seconds_left(v, r);
    if (left > 0 && share < 1) v->bar.started = term_seconds() - left * share / (1 - share) - 0.5;
    figure_spark(&v->losses, 16, spark, sizeof spark);
    snprintf(v->bar.extra, sizeof v->bar.extra, "loss %.3f %s %.0f %s/s", v->smooth, spark,
             per_second(v, r), v->unit);
    progress_show(&v->bar, r->step, r->steps);
}

static void print_line(const training_view *v, const corvid_training_report *r)
{
    char time[32];
    printf("step %7llu  loss %.4f", (unsigned long long)r->step, v->smooth);
    if (!isnan(r->validation)) printf("  validation %.4f", r->validation);
    if (!isnan(r->accuracy)) printf("  accuracy %.2f %%", 100 * r->accuracy);
    printf("  %.0f %s/s  %s", per_second(v, r), v->unit, time_text(r->seconds, time));
    const double left = seconds_left(v, r);
    if (left > 0 && r->step < r->steps) printf(", %s left", time_text(left, time));
    printf("\n");
    fflush(stdout);
}

static void begin(training_view *v, const corvid_training_report *r)
{
    v->begun = true;
    v->first = *r;
    take_up_log(v, r->step);
    v->smooth = v->losses.n ? v->losses.y[v->losses.n - 1] : r->loss;
    progress_end(&v->bar);
    progress_begin(&v->bar, "training");
    note("%.1f MiB to learn in", (double)r->memory_bytes / 1048576.0);
}

void training_view_report(void *view, const corvid_training_report *r)
{
    training_view *v = view;
    if (!v->begun) begin(v, r);
    v->smooth += 0.05 * (r->loss - v->smooth);
    figure_add(&v->losses, (double)r->step, r->loss);
    figure_add(&v->validations, (double)r->step, r->validation);
    figure_add(&v->accuracies, (double)r->step, r->accuracy);
    log_step(v, v->log, r);
    if (v->json) log_step(v, stdout, r);
    const bool last = r->step == r->steps;
    if (!v->json && (!isnan(r->validation) || last)) {
        progress_end(&v->bar);
        progress_begin(&v->bar, "training");
        print_line(v, r);
    }
    show_bar(v, r);
}

void training_view_progress(void *view, uint64_t done, uint64_t total)
{
    progress_show(&((training_view *)view)->bar, done, total);
}

/* ---- Beginning and end ----------------------------------------------------------------------- */

int training_view_open(training_view *v, const char *reading)
{
    int code = cli_make_folder(v->folder);
    if (code) return code;
    char *path = path_in(v->folder, "log.jsonl");
    v->log = fopen(path, "a");
    if (!v->log) code = fail(CORVID_E_WRITE, "%s: cannot be written", path);
    free(path);
    progress_begin(&v->bar, reading);
    return code;
}

static int draw(const training_view *v, const char *file, const char *title, const char *y_name,
                const figure_line *const *lines, const char *const *names, size_t n)
{
    char *path = path_in(v->folder, file);
    const int code = figure_write(path, title, "step", y_name, lines, names, n);
    free(path);
    return code;
}

static int draw_all(const training_view *v)
{
    const figure_line *losses[] = { &v->losses, &v->validations };
    const figure_line *accuracies[] = { &v->accuracies };
    const char *const names[] = { "training", "validation" };
    const bool texts = strcmp(v->unit, "tokens") == 0;
    int code = draw(v, "loss.svg", "Loss", texts ? "nats per token" : "nats", losses, names, 2);
    if (!code && v->accuracies.n)
        code =
            draw(v, "accuracy.svg", "Accuracy", "share of the pictures", accuracies, names + 1, 1);
    return code;
}

int training_view_close(training_view *v, int code)
{
    progress_end(&v->bar);
    if (v->log) fclose(v->log);
    v->log = NULL;
    if (v->begun) {
        const int drawn = draw_all(v);
        if (!code) code = drawn;
    }
    figure_free(&v->losses);
    figure_free(&v->validations);
    figure_free(&v->accuracies);
    return code;
}

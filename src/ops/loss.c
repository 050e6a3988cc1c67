/* loss.c - cross-entropy behind the head; see loss.h.
 *
 * The logits of all rows together would be larger than the model where the vocabulary is large, so
 * they are made, used and forgotten CV_LOSS_ROWS at a time. */
#include <math.h>

#include "ops/logit_row.h"
#include "ops/loss.h"

/* What a row should have given: (1 - s) ((1 - share) target + share other) + s / V. */
typedef struct wish {
    int32_t target, other;
    double share;
} wish;

/* - sum q ln softmax(logits); logits become weight * (softmax - q), and with l2_wrap the largest one
 * is pulled down. */
static double one_row(const cv_kernels *kernel, const cv_loss *loss, size_t V, const wish *q,
                      float *logits, size_t *best_at)
{
    const size_t best = cv_best_logit(V, logits);
    const float top = logits[best];
    const double s = loss->smoothing, all = s > 0.0 ? cv_sum_of(V, logits) : 0.0;
    const double at =
        (1.0 - q->share) * (double)logits[q->target] + q->share * (double)logits[q->other];
    cv_below(V, logits, top, logits);
    kernel->exp(V, logits, logits);

    const double sum = cv_sum_of(V, logits), log_sum = log(sum) + (double)top;
    const double value = log_sum - (1.0 - s) * at - s * all / (double)V;
    const float scale = (float)(loss->weight / sum), even = (float)(loss->weight * s / (double)V);
    cv_scale_down(V, scale, even, logits);
    logits[q->target] -= (float)(loss->weight * (1.0 - s) * (1.0 - q->share));
    logits[q->other] -= (float)(loss->weight * (1.0 - s) * q->share);
    logits[best] += (float)(loss->weight * loss->l2_wrap) * top;
    *best_at = best;
    return value;
}

/* This member's rows of a part. */
static void rows_of(const cv_run *part, const cv_loss *loss, size_t first, float *logits,
                    float *rows)
{
    const size_t V = loss->head->rows;
    for (size_t t = part->lo; t < part->hi; t++) {
        const size_t at = first + t;
        const int32_t target = loss->targets[at];
        const wish q = { target, loss->others ? loss->others[at] : target,
                         loss->others ? (double)loss->share[at] : 0.0 };
        float *row = logits + t * V;
        size_t best = 0;
        rows[at] = 0.0f;
        if (target >= 0)
            rows[at] = (float)one_row(part->kernel, loss, V, &q, row, &best);
        else
            for (size_t i = 0; i < V; i++)
                row[i] = 0.0f;
        if (loss->best) loss->best[at] = (int32_t)best;
    }
}

void cv_cross_entropy(const cv_run *run, const cv_loss *loss, const float *z, float *logits,
                      bool gradients, float *rows)
{
    const size_t C = loss->head->cols;
    float *dz = gradients ? cv_gradient(run, z) : NULL;
    float *db = gradients && loss->bias ? cv_gradient(run, loss->bias) : NULL;
    for (size_t first = 0; first < run->T; first += CV_LOSS_ROWS) {
        cv_run part = *run;
        part.tape = NULL; /* the product is not recorded: it goes back here */
        part.T = run->T - first < CV_LOSS_ROWS ? run->T - first : CV_LOSS_ROWS;
        cv_share(run->me, part.T, &part.lo, &part.hi);
        const cv_linear head = {
            .W = loss->head, .x = z + first * C, .y = logits, .bias = loss->bias
        };
        cv_linear_all(&part, &head, 1);
        cv_meet(run);
        rows_of(&part, loss, first, logits, rows);
        cv_meet(run);
        part.tape = run->tape;
        if (gradients)
            cv_product_back(&part, loss->head, z + first * C, C, logits, dz + first * C, true, db);
        cv_meet(run);
    }
}

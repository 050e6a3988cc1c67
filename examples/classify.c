/* classify.c - opens a vision model, shows it a picture, names what is in it:  classify MODEL IMAGE */
#include <stdio.h>
#include <stdlib.h>

#include <corvid.h>

enum { BEST = 5 };

/* Prints the classes of the largest scores, each of which is taken out of the list. */
static void print_best(const corvid_model *model, float *logits, size_t n)
{
    for (size_t rank = 0; rank < BEST && rank < n; rank++) {
        size_t best = 0;
        for (size_t i = 1; i < n; i++)
            if (logits[i] > logits[best]) best = i;
        const char *name = corvid_class_name(model, best); /* NULL: only its number is known */
        printf("%6zu  %9.4f  %s\n", best, (double)logits[best], name ? name : "");
        logits[best] = -1e30f;
    }
}

int main(int argc, char **argv)
{
    corvid_error err = { CORVID_OK, "out of memory" };
    corvid_model_info info = { .struct_size = sizeof info };
    corvid_framing framing;
    corvid_model *model = NULL;
    corvid_picture *picture = NULL, *framed = NULL;
    float *logits = NULL;
    int failed = 1;

    if (argc < 3) return puts("usage: classify MODEL IMAGE") == EOF;
    if (corvid_model_open(argv[1], NULL, &model, &err)) goto done;
    if (corvid_model_get_info(model, &info, &err)) goto done;
    if (corvid_picture_open(argv[2], 0, &picture, &err)) goto done;
    corvid_framing_defaults(model, &framing); /* as the published models were evaluated */
    if (corvid_picture_frame(picture, &framing, &framed, &err)) goto done;
    if (!(logits = calloc(info.n_classes + 1, sizeof *logits))) goto done;
    const corvid_view view = { .picture = framed, .logits = logits };
    if (corvid_see(model, &view, 1, NULL, 0, &err)) goto done;
    print_best(model, logits, info.n_classes);
    failed = 0;
done:
    if (failed) fprintf(stderr, "%s\n", err.text);
    free(logits);
    corvid_picture_close(framed), corvid_picture_close(picture);
    corvid_model_close(model);
    return failed;
}

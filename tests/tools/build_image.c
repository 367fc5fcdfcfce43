/* build_image STORE TEMPLATE AGENT: build an image and say where it is. For trying templates without a daemon. */
#include "hvm_error.h"
#include "image_build.h"

#include <stdio.h>

static void on_progress(const char *text, double fraction, gpointer data)
{
    char **last = data;

    if (g_strcmp0(*last, text) != 0) {
        printf("%3.0f%% %s\n", fraction * 100, text);
        fflush(stdout);
        g_free(*last);
        *last = g_strdup(text);
    }
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(ImageStore) store = NULL;
    g_autoptr(Template) template = NULL;
    g_autoptr(Image) image = NULL;
    g_autofree char *last = NULL;
    g_auto(GStrv) folders = template_folders();

    if (argc != 4) {
        fprintf(stderr, "usage: build_image STORE TEMPLATE AGENT\n");
        return 2;
    }
    if (!(store = image_store_open(argv[1], 0, 0, &error)) ||
        !(template = template_load((const char *const *)folders, argv[2], &error)) ||
        !(image = image_build(store, template, argv[3], on_progress, &last, NULL, &error))) {
        fprintf(stderr, "build_image: %s\n", error->message);
        return hvm_error_exit_status(error);
    }
    printf("%s %s %" G_GUINT64_FORMAT " bytes, %" G_GUINT64_FORMAT " on disk\n", image->folder, image->digest,
           image->root_bytes, image->disk_bytes);
    return 0;
}

/* Loads modules in the order of a list. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Kernels before 3.8 have no finit_module(2). */
static int load_from_memory(int fd)
{
    struct stat status;
    void *image = fstat(fd, &status) == 0 ? mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0) : MAP_FAILED;
    int result;

    if (image == MAP_FAILED)
        return -1;
    result = (int)syscall(SYS_init_module, image, (unsigned long)status.st_size, "");
    munmap(image, (size_t)status.st_size);
    return result;
}

static void load(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int result = fd < 0 ? -1 : (int)syscall(SYS_finit_module, fd, "", 0);

    if (fd >= 0 && result < 0 && errno == ENOSYS)
        result = load_from_memory(fd);
    /* Not fatal by itself: what it is needed for will be missed with a clearer word. */
    if (result < 0 && errno != EEXIST)
        init_warn("cannot load the module %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
}

void init_load_modules(const char *list)
{
    FILE *file = fopen(list, "re");
    char line[256];

    while (file && fgets(line, sizeof(line), file)) {
        line[strcspn(line, "\n")] = 0;
        if (*line)
            load(line);
    }
    if (file)
        fclose(file);
}

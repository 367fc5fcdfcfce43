#include "image_keys.h"

const Key image_keys[] = {
    IMAGE_OS_KEYS,
    {0},
};

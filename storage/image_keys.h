/*
 * image_keys.h: what an operating system needs of its virtual hardware, as rows of a key table.
 *
 * An image keeps these settings in its image.conf, and templates may set them: one list feeds both tables.
 */
#pragma once

#include "key.h"

#define IMAGE_OS_KEYS                                                                                                     \
    {.group = "os", .key = "id", .type = KEY_STRING, .help = "libosinfo's short id or URL of the operating system"},      \
    {.group = "os", .key = "machine", .type = KEY_CHOICE, .choices = "q35|pc", .fallback = "q35",                         \
     .help = "QEMU machine type that the system can drive"},                                                              \
    {.group = "os", .key = "disk-bus", .type = KEY_CHOICE, .choices = "virtio|sata|ide", .fallback = "virtio",            \
     .help = "bus of the root disk"},                                                                                     \
    {.group = "os", .key = "nic-model", .type = KEY_CHOICE, .choices = "virtio|e1000e|e1000|rtl8139",                     \
     .fallback = "virtio", .help = "model of the network card"},                                                          \
    {.group = "os", .key = "agent-port", .type = KEY_CHOICE, .choices = "virtio|isa-serial", .fallback = "virtio",        \
     .help = "what the agent's channel goes over"}

/* The rows above alone, ended by a row with group NULL: the table of Image.settings. */
extern const Key image_keys[];
